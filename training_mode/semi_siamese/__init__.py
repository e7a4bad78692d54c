"""Semi-siamese training: few images of each person, two networks, a queue of prototypes."""

from facelab.training_mode.semi_siamese.mode import SemiSiamese

__all__ = ["SemiSiamese"]
