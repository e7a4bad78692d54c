"""Distillation: a student learns from a frozen teacher."""

from facelab.training_mode.distillation.mode import Distillation

__all__ = ["Distillation"]
