"""Random numbers that follow from a seed and a step: equal on all processes and devices, without asking the device."""

import math

import torch
from torch import Tensor

# SplitMix64 (Steele et al., OOPSLA 2014): the increment and the multipliers of its finaliser, as signed numbers.
INCREMENT = 0x9E3779B97F4A7C15 - 2**64
ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
LAST_SHIFT = 31
FEISTEL_ROUNDS = 6


def normal(seed: int, step: Tensor, size: int) -> Tensor:
    """Independent numbers of the standard normal distribution.

    Args:
        seed: 0 to 2^31 - 1.
        step: Number of the draw, int64, (); it need not leave its device.
        size: How many, below 2^32.

    Returns:
        float64, (size,), on the device of ``step``.
    """
    drawn: Tensor = torch.special.ndtri(uniform(seed, step, size))
    return drawn


def uniform(seed: int, step: Tensor, size: int) -> Tensor:
    """Independent numbers between 0 and 1, both excluded; arguments and result as of `normal`."""
    key = _mixed(step + (seed << 32))
    bits = _mixed(key + torch.arange(1, size + 1, device=step.device) * INCREMENT)
    # 53 bits, moved to the middle of their cells: 0 and 1 have no quantile.
    drawn: Tensor = (_shifted(bits, 11).to(torch.float64) + 0.5) * 2.0**-53
    return drawn


def shuffled(seed: int, step: Tensor, size: int, count: int) -> Tensor:
    """The beginning of a random order of the numbers 0 to size - 1, at a cost that grows with ``count`` alone.

    A Feistel network over pairs of numbers, whose rounds add to one of a pair what a hash makes of the other, permutes
    them without a list of all (Black and Rogaway, CT-RSA 2002, section 5). Pairs are a few more than ``size``.

    Args:
        seed: 0 to 2^31 - 1.
        step: Number of the draw, int64, (); it need not leave its device.
        size: At least 1.
        count: 1 to ``size``.

    Returns:
        int64, different numbers, (count + at most 1 + sqrt(size),), on the device of ``step``: at least ``count`` of
        them are below ``size``, the others stand for nothing.
    """
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    place = torch.arange(count + rows * columns - size, device=step.device)
    row, column = place // columns, place % columns
    key = _mixed(step + (seed << 32))
    for number in range(0, FEISTEL_ROUNDS, 2):
        row = (row + _hashed(key + number, column)) % rows
        column = (column + _hashed(key + number + 1, row)) % columns
    return row * columns + column


def _mixed(bits: Tensor) -> Tensor:
    for shift, multiplier in ROUNDS:
        bits = (bits ^ _shifted(bits, shift)) * multiplier
    return bits ^ _shifted(bits, LAST_SHIFT)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Bits moved right with zeros from the left, which ``>>`` of signed numbers does not give."""
    shifted: Tensor = (bits >> by) & (2 ** (64 - by) - 1)
    return shifted


def _hashed(key: Tensor, numbers: Tensor) -> Tensor:
    """31 bits for each number, so that sums with them do not overflow."""
    return _shifted(_mixed(key * INCREMENT + _mixed(numbers)), 33)
