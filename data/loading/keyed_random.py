"""Random numbers and permutations that are pure functions of their keys: nothing to save, any of them at once."""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Keys = int | NDArray[np.int64] | Words

# The constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); STEP is 2**64 divided by the golden ratio.
STEP = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
# Four rounds are provably enough where the halves are large (Luby and Rackoff, 1988). Ours need not be: the five images
# of a class have a grid of three by two. Twice as many make small permutations even too.
ROUNDS = 8


def mix(*keys: Keys, start: Words | None = None) -> Words:
    """64 random bits for each combination of keys: the finaliser of SplitMix64, once for each key.

    Args:
        keys: Whole numbers or arrays of them that broadcast against each other; negative ones count modulo 2**64.
        start: What `mix` gave for the keys that come before these: ``mix(b, start=mix(a))`` is ``mix(a, b)``.

    Returns:
        uint64 of the broadcast shape, at least (1,).
    """
    mixed = np.zeros(1, np.uint64) if start is None else start
    for key in keys:
        mixed = _scramble((mixed ^ _words(key)) + STEP)
    return mixed


def uniform(*keys: Keys, start: Words | None = None) -> NDArray[np.float64]:
    """Numbers in [0, 1) for each combination of keys, of the broadcast shape; ``start`` as in `mix`."""
    # 53 bits are what a float64 holds exactly, so that no number is rounded up to 1.
    return np.asarray((mix(*keys, start=start) >> np.uint64(11)) * 2.0**-53)


def permute(position: NDArray[np.int64], size: int | NDArray[np.int64], *keys: Keys) -> NDArray[np.int64]:
    """Where a random permutation of ``range(size)`` sends ``position``, without building the permutation.

    A Feistel network over a grid of rows and columns that holds ``size`` or a few more cells (Black and Rogaway,
    CT-RSA 2002); a result outside is sent through the network again until it is inside, which keeps it one to one.

    Args:
        position: 0..size-1, any shape.
        size: Length of the permutation, at least 1; an array gives every position a permutation of its own length.
        keys: Choose the permutation; whole numbers, or arrays of the shape of ``position``.

    Returns:
        0..size-1, of the shape of ``position``.
    """
    shape = position.shape
    sizes, walk = (np.broadcast_to(_words(value), shape).ravel() for value in (size, position))
    key = np.broadcast_to(mix(*keys), shape).ravel()
    result = _feistel(walk, sizes, key)
    # Cycle walking. The network permutes the whole grid, so whoever starts inside comes back inside in the end, and two
    # that start apart end apart. The grid has fewer spare cells than columns: of many, almost none walks twice.
    outside = np.flatnonzero(result >= sizes)
    while outside.size:
        result[outside] = _feistel(result[outside], sizes[outside], key[outside])
        outside = outside[result[outside] >= sizes[outside]]
    return result.astype(np.int64).reshape(shape)


def _feistel(position: Words, size: Words, key: Words) -> Words:
    """One pass of the network: a permutation of the grid's cells, in which ``position`` counts them row by row."""
    # As square as it can be and no power of two: both halves stay as large as possible, the grid as small.
    columns = np.ceil(np.sqrt(size.astype(np.float64))).astype(np.uint64)
    rows = (size + columns - np.uint64(1)) // columns
    row, column = np.divmod(position, columns)
    for number in range(0, ROUNDS, 2):
        # Adding what depends on the other half alone can be undone, so each round is one to one, whatever is added.
        row = (row + _half(key, number, column)) % rows
        column = (column + _half(key, number + 1, row)) % columns
    return np.asarray(row * columns + column)


def _half(key: Words, number: int, value: Words) -> Words:
    """63 random bits, so that adding a position cannot overflow."""
    return mix(key, number, value) >> np.uint64(1)


def _scramble(word: Words) -> Words:
    word = (word ^ (word >> SHIFTS[0])) * MULTIPLIERS[0]
    word = (word ^ (word >> SHIFTS[1])) * MULTIPLIERS[1]
    return word ^ (word >> SHIFTS[2])


def _words(key: Keys) -> Words:
    if isinstance(key, int):
        return np.array([key & 0xFFFFFFFFFFFFFFFF], np.uint64)
    return np.atleast_1d(key).astype(np.uint64)
