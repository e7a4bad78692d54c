"""TransFace: patches that the network relies on are changed, and samples whose tokens say little weigh more."""

from facelab.training_mode.transface.mode import TransFace

__all__ = ["TransFace"]
