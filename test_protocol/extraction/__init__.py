"""The one extractor: images to embeddings, once, cached."""
