"""Data sets, one kind a file."""
