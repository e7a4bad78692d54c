"""A shuffle for images that are read in runs of neighbours: shards, slow disks, places elsewhere."""

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import SAMPLERS, Labels, Sampler
from facelab.data.loading.keyed_random import permute, uniform
from facelab.data.loading.samplers import checked_rows
from facelab.errors import in_range

Rows = NDArray[np.int64]

RUN = 256
"""Images of a run where the source does not say what is read together."""
BLOCKS = 4
"""Blocks of the order that are kept, since the threads of a loader work at neighbouring batches."""


@SAMPLERS.register("ShardShuffle")
class ShardShuffle(Sampler):
    """Every image once an epoch: runs of neighbours in a random order, their images mixed with those of other runs.

    What a shuffle buffer does to a stream, as a function of seed, epoch and position, so that any position is reached
    at once. Run after run enters the buffer, in an order that is new in each epoch; an image leaves it at a random
    moment while ``buffer`` further images enter. So a batch shows images of some ``buffer / run length`` runs, and each
    run is read within one stretch of the epoch. Images of one run stay within about ``buffer`` rows of each other,
    where `Shuffle` spreads them over the epoch: a set sorted by person needs a larger buffer than a mixed one.

    Args:
        labels: Class of each image, (N,).
        buffer: Images among which are mixed, at least 1.
        seed: Chooses the orders.
        runs: First image of each run, (R,), as the source gives it; runs of 256 images by default.

    Raises:
        ConfigError: If ``buffer`` is below 1.
    """

    def __init__(self, labels: Labels, buffer: int = 16384, seed: int = 0, runs: Rows | None = None) -> None:
        in_range("ShardShuffle buffer", buffer, 1, float("inf"))
        self._size, self._buffer, self._seed = len(labels), buffer, seed
        self._first = np.arange(0, self._size, RUN) if runs is None else runs
        self._length = np.diff(self._first, append=self._size)
        self._order: tuple[int, Rows, Rows] | None = None
        self._blocks: dict[tuple[int, int], tuple[int, Rows]] = {}

    def __len__(self) -> int:
        """Rows in one epoch: one for each image."""
        return self._size

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Index of the image in rows ``start`` to ``stop`` of an epoch, (stop - start,)."""
        checked_rows(start, stop, len(self))
        parts = [np.zeros(0, np.int64)]
        number, at = start // self._buffer, start
        while at < stop:
            before, images = self._block(epoch, number)
            part = images[at - before : stop - before]
            parts.append(part)
            at, number = at + len(part), number + 1
        return np.concatenate(parts)

    def _block(self, epoch: int, number: int) -> tuple[int, Rows]:
        """The images that leave while so many others enter, and how many have left before.

        The image that enters at place p of the epoch leaves at the moment ``p + buffer * u``, u in [0, 1). Block m has
        the moments from ``m * buffer`` to ``(m + 1) * buffer``: so many have entered by its beginning, so its first
        image stands in that row or before, and all of its images have entered within two buffers.
        """
        kept = self._blocks.get((epoch, number))
        if kept is not None:
            return kept
        begin, end = number * self._buffer, (number + 1) * self._buffer
        first = max(0, begin - self._buffer)
        places = np.arange(first, min(end, self._size))
        images = self._entering(epoch, places)
        moments = places + self._buffer * uniform(self._seed, epoch, images)
        inside = (moments >= begin) & (moments < end)
        block = first + int((moments < begin).sum()), images[inside][np.argsort(moments[inside], kind="stable")]
        # Put in as a new dictionary, which other threads see whole.
        self._blocks = {**dict(list(self._blocks.items())[1 - BLOCKS :]), (epoch, number): block}
        return block

    def _entering(self, epoch: int, places: Rows) -> Rows:
        """The images at some places of an epoch without its buffer: run after run."""
        kept = self._order
        if kept is None or kept[0] != epoch:
            order = permute(np.arange(len(self._first)), len(self._first), self._seed, epoch)
            lengths = self._length[order]
            self._order = kept = epoch, order, np.cumsum(lengths) - lengths
        _, order, starts = kept
        run = np.searchsorted(starts, places, "right") - 1
        return np.asarray(self._first[order[run]] + places - starts[run])
