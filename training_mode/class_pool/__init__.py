"""Dynamic class pool: class rows for a part of all people at a time."""

from facelab.training_mode.class_pool.mode import DynamicClassPool

__all__ = ["DynamicClassPool"]
