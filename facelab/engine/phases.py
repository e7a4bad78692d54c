"""The phases of a training step, which profiles tell apart."""

from typing import Literal

from torch.profiler import record_function

Phase = Literal["loader", "augmentation", "forward", "backward", "optimizer"]
PREFIX = "facelab/"


def phase(name: Phase) -> record_function:
    """Context of a phase: a range in the traces of torch's profiler; a few microseconds where none runs."""
    return record_function(PREFIX + name)
