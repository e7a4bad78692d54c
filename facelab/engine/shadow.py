"""A second network that follows the one in training as a moving average: weight averaging, semi-siamese, class pool."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from facelab.errors import CheckpointError, in_range, one_of

Buffers = Literal["copy", "average", "own"]

N = TypeVar("N", bound=nn.Module)


class Shadow(Generic[N]):
    """Moving average of a network's parameters (Polyak and Juditsky, SIAM J. Control Optim. 1992).

    It starts as an exact copy, is never differentiated, and takes one fused operation per update. It stays outside
    DistributedDataParallel: parameters that are equal on all processes have equal shadows.

    Args:
        network: The network in training, not wrapped.
        decay: Part of the shadow that stays at an update, from 0 up to but not including 1; the rest comes from the
            network in training.
        warmup: Follow more closely at first: update t (from 0) uses ``min(decay, (1 + t) / (10 + t))``, so that the
            random start is soon forgotten.
        buffers: Where the shadow's buffers, such as BatchNorm's statistics, come from: ``copy`` takes those of the
            network in training, ``average`` averages them like the parameters, ``own`` leaves them to the shadow's own
            forward passes in training mode.

    Attributes:
        network: The shadow itself, for evaluation, export or as a second branch. In evaluation mode, or in training
            mode if it has its own buffers.
        updates: Updates so far.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(self, network: N, *, decay: float = 0.999, warmup: bool = False, buffers: Buffers = "copy") -> None:
        self.full_decay = in_range("shadow decay", decay, 0.0, 1.0, high_open=True)
        self.warmup = warmup
        self.buffers = one_of("shadow buffers", buffers, get_args(Buffers))
        self.network: N = deepcopy(network).requires_grad_(False).train(buffers == "own")
        self.updates = 0

    @property
    def decay(self) -> float:
        """Part of the shadow that the next update keeps."""
        early = (1 + self.updates) / (10 + self.updates)
        return min(self.full_decay, early) if self.warmup else self.full_decay

    @torch.no_grad()
    def update(self, network: N) -> None:
        """Follow the network by one update.

        Args:
            network: The network in training, of the same structure.
        """
        _approach(list(self.network.parameters()), list(network.parameters()), 1.0 - self.decay)
        if self.buffers != "own":
            self._follow_buffers(list(zip(self.network.buffers(), network.buffers(), strict=True)))
        self.updates += 1

    def _follow_buffers(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        averaged = [pair for pair in pairs if self.buffers == "average" and pair[0].is_floating_point()]
        _approach([own for own, _ in averaged], [other for _, other in averaged], 1.0 - self.decay)
        copied = [pair for pair in pairs if self.buffers == "copy" or not pair[0].is_floating_point()]
        if copied:
            torch._foreach_copy_([own for own, _ in copied], [other for _, other in copied])

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: the live tensors and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: If it is the state of another network.
        """
        own = {name: tensor.shape for name, tensor in self.network.state_dict().items()}
        stored = {name: tensor.shape for name, tensor in state["network"].items()}
        differing = {name for name, _ in own.items() ^ stored.items()}
        if differing:
            raise CheckpointError(f"the shadow network in the checkpoint is another: '{min(differing)}' differs.")
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]


def _approach(shadow: list[Tensor], target: list[Tensor], step: float) -> None:
    """Move each tensor towards its target by a part of the way, 0..1."""
    if shadow:
        torch._foreach_lerp_(shadow, target, step)
