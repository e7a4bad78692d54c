"""First values of class rows: the same matrix on any number of processes."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facelab.head.base import ClassShard

Array = npt.NDArray[Any]
Initial = Literal["unit", "normal"]

# Rows of one random stream. With one stream for all rows, a process would have to draw all that come before its own to
# get the rows of a run on one process; with one a row, seeding would cost more than drawing. The number is part of
# what a seed means: with another, the same seed gives other rows.
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

    def draw(block: int) -> Array:
        return np.random.default_rng((seed, block)).standard_normal((BLOCK, feat_dim), dtype=np.float32)

    rows = _blocks(shard, draw)
    return torch.nn.functional.normalize(rows) if initial == "unit" else rows.mul_(deviation)


def initial_numbers(shard: ClassShard, low: float, high: float, seed: int, number: int) -> Tensor:
    """A number for each class, spread evenly from ``low`` to ``high``; as with `initial_rows`, whoever owns the others.

    Args:
        shard: Which classes.
        low: Smallest.
        high: Largest.
        seed: Not negative.
        number: Tells several numbers of a class apart.

    Returns:
        float32, (stop - start,).
    """

    def draw(block: int) -> Array:
        return np.random.default_rng((seed, block, 1 + number)).uniform(low, high, BLOCK).astype(np.float32)

    return _blocks(shard, draw)


def _blocks(shard: ClassShard, draw: Callable[[int], Array]) -> Tensor:
    parts = []
    for block in range(shard.start // BLOCK, -(-shard.stop // BLOCK)):
        first = block * BLOCK
        # A whole block even where a part is wanted: its stream depends on its number only.
        parts.append(draw(block)[max(shard.start - first, 0) : shard.stop - first])
    return torch.from_numpy(np.concatenate(parts))
