"""Who owns the class rows, one owner a file."""
