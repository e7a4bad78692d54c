"""First values of class rows: the same matrix on any number of processes."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from facelab.head.base import ClassShard

Initial = Literal["unit", "normal"]

# Rows of one random stream. Part of what a seed means: with another number, the same seed gives other rows.
BLOCK = 1024


def initial_rows(shard: ClassShard, feat_dim: int, initial: Initial, deviation: float, seed: int) -> Tensor:
    """Rows ``[start, stop)`` of the matrix that ``seed`` stands for, whoever owns the other rows.

    Args:
        shard: Which rows.
        feat_dim: D.
        initial: ``unit`` gives directions spread evenly over the sphere, with norm 1; ``normal`` independent entries.
        deviation: Standard deviation of the entries of ``normal``.
        seed: Not negative.

    Returns:
        float32, (stop - start, D).
    """
    rows = torch.empty(shard.size, feat_dim)
    for block in range(shard.start // BLOCK, -(-shard.stop // BLOCK)):
        low, high = max(shard.start, block * BLOCK), min(shard.stop, (block + 1) * BLOCK)
        # A whole block even where a part is wanted: its stream depends on its number only.
        drawn = np.random.default_rng((seed, block)).standard_normal((BLOCK, feat_dim), dtype=np.float32)
        rows[low - shard.start : high - shard.start] = torch.from_numpy(
            drawn[low - block * BLOCK : high - block * BLOCK]
        )
    return torch.nn.functional.normalize(rows) if initial == "unit" else rows.mul_(deviation)
