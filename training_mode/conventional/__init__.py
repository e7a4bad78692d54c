"""Conventional training: one image, one label, one margin head."""
