"""Adaptation: adapters in a trained network, a gate for quality, and protection from forgetting."""

from facelab.training_mode.adaptation.mode import Adaptation

__all__ = ["Adaptation"]
