"""Metric learning: losses of pairs and triplets of a batch, without class rows or beside them."""

from facelab.training_mode.triplet.mode import Triplet

__all__ = ["Triplet"]
