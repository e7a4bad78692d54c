"""Margin heads, one a file."""
