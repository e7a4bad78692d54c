"""Conventional training: one image, one label, one margin head."""

from facelab.training_mode.conventional.mode import Conventional

__all__ = ["Conventional"]
