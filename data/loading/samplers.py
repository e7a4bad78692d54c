"""Orders in which an epoch visits its images. Each is a pure function of the epoch and the position."""

import math

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import SAMPLERS, Labels, Sampler
from facelab.data.loading.keyed_random import permute
from facelab.errors import ConfigError, in_range

Rows = NDArray[np.int64]


@SAMPLERS.register("Shuffle")
class Shuffle(Sampler):
    """Every image once an epoch, in an order that is random and new in each epoch.

    The order is computed, not stored: a hundred million images cost no memory, and any position is reached at once.

    Args:
        labels: Class of each image, (N,).
        seed: Chooses the orders.
    """

    def __init__(self, labels: Labels, seed: int = 0) -> None:
        self._size = len(labels)
        self._seed = seed

    def __len__(self) -> int:
        """Rows in one epoch: one for each image."""
        return self._size

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Index of the image in rows ``start`` to ``stop`` of an epoch, (stop - start,)."""
        positions = np.arange(*checked_rows(start, stop, len(self)))
        return permute(positions, self._size, self._seed, epoch)


@SAMPLERS.register("Sequential")
class Sequential(Sampler):
    """Every image once an epoch, in the order of the source.

    Args:
        labels: Class of each image, (N,).
    """

    def __init__(self, labels: Labels) -> None:
        self._size = len(labels)

    def __len__(self) -> int:
        """Rows in one epoch: one for each image."""
        return self._size

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Index of the image in rows ``start`` to ``stop``, the same in every epoch, (stop - start,)."""
        return np.arange(*checked_rows(start, stop, len(self)))


@SAMPLERS.register("ClassBalanced")
class ClassBalanced(Sampler):
    """P classes times K images: every class comes equally often, whatever its number of images.

    K rows in succession are images of one class, all different if the class has K images, otherwise repeated equally
    often. The classes follow each other in a random order that is new each time all of them have been visited, so a
    batch repeats a class only where it crosses from one such round to the next. An epoch has as many rows as there are
    images, rounded down to a multiple of K.

    Args:
        labels: Class of each image, (N,).
        images_per_class: K; the batch of each process must be a multiple of it.
        seed: Chooses the orders.

    Raises:
        ConfigError: If K is below 1 or above the number of images.
    """

    def __init__(self, labels: Labels, images_per_class: int = 4, seed: int = 0) -> None:
        if not 1 <= images_per_class <= len(labels):
            raise ConfigError(
                f"ClassBalanced images_per_class is {images_per_class}, but must lie in [1, {len(labels)}], "
                "the number of images."
            )
        self.rows_per_group = images_per_class
        self._seed = seed
        self._order = np.argsort(labels, kind="stable")  # the images class by class
        counts = np.bincount(labels)
        present = counts > 0
        self._counts = counts[present]
        self._starts = (np.cumsum(counts) - counts)[present]
        self._groups = len(labels) // images_per_class

    def __len__(self) -> int:
        """Rows in one epoch, a multiple of K."""
        return self._groups * self.rows_per_group

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Index of the image in rows ``start`` to ``stop`` of an epoch, (stop - start,)."""
        group, member = np.divmod(np.arange(*checked_rows(start, stop, len(self))), self.rows_per_group)
        visit, place = np.divmod(group, len(self._counts))
        # Each visit to all classes has an order of its own, and in it each class an order of its images.
        drawn = permute(place, len(self._counts), self._seed, epoch, visit)
        count = self._counts[drawn]
        image = permute(member % count, count, self._seed, epoch, visit, drawn)
        index: Rows = self._order[self._starts[drawn] + image]
        return index


@SAMPLERS.register("PairsAndInstances")
class PairsAndInstances(Sampler):
    """Pairs of one person, and pairs of images as they come: the two loaders of Fast Face Classification in one.

    Rows 2i and 2i + 1 are a pair. In turn, ``same`` pairs show one person each, every person equally often as in
    `ClassBalanced`, and ``mixed`` pairs two images whosoever, every image equally often as in `Shuffle`. By default
    there are as many single images as pairs of a person, as in the authors' program. An epoch has as many rows as there
    are images, rounded down to whole pairs.

    Args:
        labels: Class of each image, (N,).
        same: Pairs of one person in a turn, at least 1.
        mixed: Pairs of any images in a turn, 0 or more.
        seed: Chooses the orders.

    Raises:
        ConfigError: If a number is out of range, or there is one image only.
    """

    rows_per_group = 2

    def __init__(self, labels: Labels, same: int = 2, mixed: int = 1, seed: int = 0) -> None:
        in_range("PairsAndInstances same", same, 1, math.inf)
        in_range("PairsAndInstances mixed", mixed, 0, math.inf)
        self._same, self._mixed = ClassBalanced(labels, images_per_class=2, seed=seed), Shuffle(labels, seed)
        self._turn, self._same_in_turn = 2 * (same + mixed), 2 * same
        self._size = len(labels) // 2 * 2

    def __len__(self) -> int:
        """Rows in one epoch, an even number."""
        return self._size

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Index of the image in rows ``start`` to ``stop`` of an epoch, (stop - start,)."""
        positions = np.arange(*checked_rows(start, stop, len(self)))
        of_same = positions % self._turn < self._same_in_turn
        first, last = (self._same_before(row) for row in (start, stop))
        index = np.empty(len(positions), np.int64)
        index[of_same] = self._same.rows(epoch, first, last)
        index[~of_same] = self._mixed.rows(epoch, start - first, stop - last)
        return index

    def _same_before(self, row: int) -> int:
        """How many rows before one belong to pairs of one person."""
        turns, rest = divmod(row, self._turn)
        return turns * self._same_in_turn + min(rest, self._same_in_turn)


def checked_rows(start: int, stop: int, size: int) -> tuple[int, int]:
    """The rows themselves.

    Raises:
        ConfigError: If they are not inside an epoch of so many rows.
    """
    if not 0 <= start <= stop <= size:
        raise ConfigError(f"rows {start} to {stop} are not inside an epoch of {size} rows.")
    return start, stop
