"""Random numbers that are keyed by the name of who draws them, so that no transform changes those of another."""

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from facelab.data.loading.keyed_random import Words, mix, uniform

Numbers = NDArray[np.float64]

CHOSEN = "chosen"
"""The draw that decides whether an image is changed at all."""

# The transforms of version 0.1 drew by the place of a draw in this list, from 1. They still do, so that figures can be
# repeated and runs resumed. Nothing is ever added: whatever else there is draws by the hash of its name.
_FIRST = (
    ("flip", CHOSEN),
    ("crop", CHOSEN), ("crop", "area"), ("crop", "x"), ("crop", "y"),
    ("shift", CHOSEN), ("shift", "x"), ("shift", "y"),
    ("light", CHOSEN), ("light", "brightness"), ("light", "contrast"),
    ("erase", CHOSEN), ("erase", "area"), ("erase", "shape"), ("erase", "x"), ("erase", "y"),
)  # fmt: skip
_FIRST_KEYS = {names: (number,) for number, names in enumerate(_FIRST, start=1)}


class Draws:
    """The random numbers of one transform for the images of a batch.

    A number depends on (seed, epoch, step, row of the global batch, name of the transform, name of the draw) and on
    nothing else: not on what was drawn before, how often, or by whom.

    Args:
        state: What `keyed_random.mix` gives for (seed, epoch, step, row), (B,).
        transform: The transform's registered name.
    """

    def __init__(self, state: Words, transform: str) -> None:
        self._state = state
        self._transform = transform

    def __call__(self, name: str, count: int | None = None) -> Numbers:
        """Numbers in [0, 1), one for each image, (B,); with ``count`` so many for each, (B, count).

        Args:
            name: Names the draw; the same name gives the same numbers.
            count: How many each image gets.
        """
        keys = _keys(self._transform, name)
        if count is None:
            return uniform(*keys, start=self._state)
        return uniform(*keys, np.arange(count), start=self._state[:, None])

    def words(self, name: str) -> Words:
        """64 random bits for each image, (B,): the key of what is made of many numbers on the device.

        Args:
            name: Names the draw.
        """
        return mix(*_keys(self._transform, name), start=self._state)

    def chosen(self, probability: float) -> NDArray[np.int64]:
        """Which images are changed if each is with this probability: their places in the batch, ascending.

        Places from the host, not a mask on the device: that need not be asked how many there are.
        """
        return np.flatnonzero(self(CHOSEN) < probability)


def draws_of_batch(seed: int, epoch: int, step: int, rows: NDArray[np.int64]) -> Words:
    """The state from which all transforms of a batch draw, (B,).

    Args:
        seed: Seed of the run.
        epoch: Epoch of the batch.
        step: Its number in the epoch.
        rows: Rows of its images in the global batch, (B,).
    """
    return mix(seed, epoch, step, rows)


@cache
def _keys(transform: str, name: str) -> tuple[int, ...]:
    return _FIRST_KEYS.get((transform, name), (_word(transform), _word(name)))


def _word(name: str) -> int:
    """64 bits that a name has in every process; Python's ``hash`` differs from one start to the next."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
