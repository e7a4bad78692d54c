"""A second network that follows the one in training as a moving average: weight averaging, semi-siamese, class pool."""

from copy import deepcopy
from typing import Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facelab.errors import in_range, one_of

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
        buffers: Where the shadow's buffers, such as BatchNorm's statistics, come from: ``copy`` takes those of the
            network in training, ``average`` averages them like the parameters, ``own`` leaves them to the shadow's own
            forward passes.

    Attributes:
        network: The shadow itself, for evaluation, export or as a second branch. In evaluation mode; with buffers of
            its own, its BatchNorm alone is in training mode, so that nothing is dropped at random.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(self, network: N, *, decay: float = 0.999, buffers: Buffers = "copy") -> None:
        self.decay = in_range("shadow decay", decay, 0.0, 1.0, high_open=True)
        self.buffers = one_of("shadow buffers", buffers, get_args(Buffers))
        self.network: N = deepcopy(network).requires_grad_(False).eval()
        if buffers == "own":
            for part in self.network.modules():
                if isinstance(part, _BatchNorm):
                    part.train()

    @torch.no_grad()
    def update(self, network: N) -> None:
        """Follow the network by one update.

        Args:
            network: The network in training, of the same structure.
        """
        _approach(list(self.network.parameters()), list(network.parameters()), 1.0 - self.decay)
        if self.buffers != "own":
            self._follow_buffers(list(zip(self.network.buffers(), network.buffers(), strict=True)))

    def _follow_buffers(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        # Counters, such as BatchNorm's of batches, have no average.
        averaged = [pair for pair in pairs if self.buffers == "average" and pair[0].is_floating_point()]
        _approach([own for own, _ in averaged], [other for _, other in averaged], 1.0 - self.decay)
        copied = [pair for pair in pairs if self.buffers == "copy" or not pair[0].is_floating_point()]
        if copied:
            torch._foreach_copy_([own for own, _ in copied], [other for _, other in copied])


def _approach(shadow: list[Tensor], target: list[Tensor], step: float) -> None:
    """Move each tensor towards its target by a part of the way, 0..1."""
    if shadow:
        torch._foreach_lerp_(shadow, target, step)
