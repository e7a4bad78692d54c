"""Names of tensors in released files."""
