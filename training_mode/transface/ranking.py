"""Which patches a network relies on: the ranking by its gate, without or with a forward pass of its own."""

from typing import Literal

import torch
from torch import Tensor, nn

from facelab import distributed

Ranking = Literal["stale", "fresh"]

DECAY = 0.99  # of the running mean; a hundred steps, of an epoch of thousands
TIE = 1e-6  # positions that lie nearer than this to each other are in random order, as all are before the first step


class MeanGate(nn.Module):
    """Running mean of the gate at each position over the steps so far: a ranking without a forward pass.

    Faces are aligned, so that a position is the same part of the face in every image.

    Args:
        patches: N.

    Attributes:
        mean: (N,), equal on all processes. Too small by one factor at the start, which no ranking sees.
    """

    mean: Tensor

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(patches))

    @torch.no_grad()
    def update(self, gate: Tensor) -> None:
        """Follow the gates of this process's images, (B, N)."""
        own = gate.float().mean(dim=0)
        self.mean.lerp_(distributed.all_reduce_sum(own) / distributed.world_size(), 1.0 - DECAY)

    def forward(self, noise: Tensor) -> Tensor:
        """What images are ranked by, (M, N); ``noise`` in 0..1 decides where positions are equal, (M, N)."""
        return self.mean + TIE * noise
