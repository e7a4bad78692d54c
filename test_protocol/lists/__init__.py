"""Readers of the protocols' lists and folders."""
