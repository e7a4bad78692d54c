"""Drawn faces, and data sets in the formats of the protocols made of them."""
