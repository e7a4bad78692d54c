"""First values of class rows: the same matrix on any number of processes."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facelab.head.base import ClassShard
from facelab.threads import thread_count

Array = npt.NDArray[Any]
Initial = Literal["unit", "normal"]
Memory = Callable[[tuple[int, ...]], Tensor]

# Rows of one random stream. With one stream for all rows, a process would have to draw all that come before its own to
# get the rows of a run on one process; with one a row, seeding would cost more than drawing. The number is part of
# what a seed means: with another, the same seed gives other rows.
BLOCK = 1024


def initial_rows(
    shard: ClassShard, feat_dim: int, initial: Initial, deviation: float, seed: int, memory: Memory = torch.empty
) -> Tensor:
    """Rows ``[start, stop)`` of the matrix that ``seed`` stands for, whoever owns the other rows.

    Args:
        shard: Which rows.
        feat_dim: D.
        initial: ``unit`` gives directions spread evenly over the sphere, with norm 1; ``normal`` independent entries.
        deviation: Standard deviation of the entries of ``normal``.
        seed: Not negative.
        memory: Gives the tensor of a shape that they are written into; on the CPU.

    Returns:
        float32, (stop - start, D).
    """

    def draw(block: int, rows: Array) -> None:
        _draw_normal(np.random.default_rng((seed, block)), rows)
        if initial == "unit":
            norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            rows /= np.maximum(norms, np.finfo(np.float32).tiny)[:, np.newaxis]
        else:
            rows *= np.float32(deviation)

    return _blocks(shard, memory((shard.size, feat_dim)), draw)


def _draw_normal(generator: np.random.Generator, numbers: Array) -> None:
    """Write independent numbers of the standard normal distribution into a float32 array of an even number of them.

    Two are made of a radius and an angle (Box and Muller, 1958): many of these at a time, while NumPy's own normal
    numbers take twice as long, because each decides by itself how often it is drawn.
    """
    generator.random(out=numbers, dtype=np.float32)  # from 0, included, to 1, excluded
    radius, angle = numbers.reshape(2, -1)
    np.negative(radius, out=radius)
    np.log1p(radius, out=radius)
    radius *= np.float32(-2.0)
    np.sqrt(radius, out=radius)
    angle *= np.float32(2.0 * math.pi)
    sine = np.sin(angle)
    np.cos(angle, out=angle)
    angle *= radius
    radius *= sine


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

    def draw(block: int, numbers: Array) -> None:
        numbers[:] = np.random.default_rng((seed, block, 1 + number)).uniform(low, high, BLOCK)

    return _blocks(shard, torch.empty(shard.size), draw)


def _blocks(shard: ClassShard, memory: Tensor, draw: Callable[[int, Array], None]) -> Tensor:
    """Rows of a shard, written into memory; ``draw`` fills the rows of a block, several blocks at a time."""
    rows: Array = memory.numpy()

    def fill(block: int) -> None:
        first = block * BLOCK - shard.start
        part = rows[max(first, 0) : first + BLOCK]
        if len(part) == BLOCK:
            draw(block, part)
            return
        # A whole block even where a part is wanted: its stream depends on its number only.
        whole = np.empty((BLOCK, *rows.shape[1:]), np.float32)
        draw(block, whole)
        part[:] = whole[max(-first, 0) :][: len(part)]

    # Threads, because NumPy lets the others run while it draws; each writes rows of its own.
    with ThreadPoolExecutor(thread_count(0)) as pool:
        for _ in pool.map(fill, range(shard.start // BLOCK, -(-shard.stop // BLOCK))):
            pass
    return memory
