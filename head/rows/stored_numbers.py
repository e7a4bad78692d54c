"""Whole numbers of a stored state that say where something is; wrong ones are refused before anything is changed."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from facelab.errors import CheckpointError


def require_whole(state: Mapping[str, Any], prefix: str, ranges: Mapping[str, tuple[int, int]], owner: str) -> None:
    """Refuse numbers outside of their range, for `torch.nn.Module._load_from_state_dict`.

    Args:
        state: What is to be loaded; what it lacks is left to torch.
        prefix: Of the names of the module that loads.
        ranges: Smallest and largest of each of its tensors, by name.
        owner: Names the class in the message.

    Raises:
        CheckpointError: If some are outside, or no whole numbers.
    """
    for name, (low, high) in ranges.items():
        stored = state.get(prefix + name)
        if isinstance(stored, Tensor) and not _within(stored, low, high):
            raise CheckpointError(
                f"the checkpoint is damaged: '{prefix}{name}' of {owner} must be whole numbers from {low} to {high}, "
                "and some are not; go on from an earlier checkpoint by --resume."
            )


def _within(stored: Tensor, low: int, high: int) -> bool:
    if stored.is_floating_point() or stored.is_complex():
        return False
    return not stored.numel() or (int(stored.min()) >= low and int(stored.max()) <= high)
