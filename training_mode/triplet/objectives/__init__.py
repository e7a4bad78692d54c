"""Losses over the embeddings of a batch: one file each."""
