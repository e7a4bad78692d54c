"""Training against occlusion: feature cells are dropped where it hurts, and hidden parts of faces are told apart."""

from facelab.training_mode.occlusion.mode import Occlusion

__all__ = ["Occlusion"]
