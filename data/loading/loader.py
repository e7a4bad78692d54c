"""The loader: a source and a sampler -> batches of one process, read ahead by threads, from any step of any epoch."""

from collections.abc import Iterator
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.data.base import Batch, Sampler, Source
from facelab.data.loading.batch_reader import BatchReader, CorruptPolicy, LoadedBatch
from facelab.data.loading.ordered_map import ordered_map
from facelab.data.loading.refusals import Refusals
from facelab.errors import ConfigError, DataError, one_of
from facelab.threads import thread_count

CORRUPT_PART = 0.1
CORRUPT_GRACE = 1000
"""After this many images, more than `CORRUPT_PART` of corrupt ones is a broken data set, not a few broken files."""


class Loader:
    """Batches of one process. The same global batches come whatever the number of processes, threads or restarts.

    Global batch s of an epoch is rows ``s * batch_size`` and on of the sampler; process r takes the r-th part of it.
    Threads, not processes, do the reading: decoding releases Python's lock, nothing is copied between processes, and an
    error arrives at its batch with the name of the file.

    Args:
        source: Images and labels.
        sampler: Their order.
        batch_size: Images in one step over all processes.
        rank: Number of this process.
        world_size: Number of processes; must divide ``batch_size``.
        workers: Threads that read, see `facelab.threads.thread_count`.
        prefetch: Batches that may wait, beside the one that each thread is reading.
        on_corrupt: ``error`` stops at an image that cannot be read, ``skip`` takes another image of the same class
            and notes it in ``corrupt``.
        seed: Chooses what replaces corrupt images.
        pin_memory: Put the images where a copy to a CUDA device need not wait.
        quality: Quality score of each image of the source, float32, (N,), for ``Batch.quality``.
        size_name: What messages call ``batch_size``.

    Attributes:
        corrupt: The images that this process found corrupt so far; ``corrupt.write(path)`` writes the report.

    Raises:
        ConfigError: If the sizes do not fit each other.
    """

    def __init__(
        self,
        source: Source,
        sampler: Sampler,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        prefetch: int = 4,
        on_corrupt: CorruptPolicy = "error",
        seed: int = 0,
        pin_memory: bool = False,
        quality: NDArray[np.float32] | None = None,
        size_name: str = "batch_size",
    ) -> None:
        one_of("on_corrupt", on_corrupt, ("error", "skip"))
        if prefetch < 1:
            raise ConfigError(f"prefetch is {prefetch}, but at least 1 batch must be read ahead.")
        if quality is not None and quality.shape != (len(source),):
            raise ConfigError(f"quality has the shape {quality.shape}, but the source has {len(source)} images.")
        _check_batch(batch_size, rank, world_size, sampler, size_name)
        if pin_memory and not torch.cuda.is_available():
            raise ConfigError("pin_memory speeds up copies to a CUDA device, and there is none; set it to false.")
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.corrupt = Refusals()
        self._source, self._sampler = source, sampler
        self._reader = BatchReader(source, on_corrupt, seed, pin_memory, quality)
        self._workers, self._prefetch = thread_count(workers), prefetch
        self._known_corrupt: set[int] = set()
        self._read = self._corrupt_read = 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch; the last images are left out if they do not fill one."""
        return len(self._sampler) // self.batch_size

    @property
    def local_batch_size(self) -> int:
        """Images in one step on this process."""
        return self.batch_size // self.world_size

    @property
    def first_row(self) -> int:
        """Place of this process's first image within each global batch."""
        return self.rank * self.local_batch_size

    def batches(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        """This process's part of the batches of one epoch, in order.

        Args:
            epoch: From 0.
            step: First batch to give; 0 is the beginning of the epoch.

        Raises:
            ConfigError: If the epoch has no such step, or the sampler gives something else than indices.
            CorruptImage: At the batch of an image that cannot be read, under the policy ``error``.
            DataError: If the images of a batch differ in size, or more than a tenth of all images is corrupt.
        """
        if not 0 <= step <= self.steps_per_epoch:
            raise ConfigError(f"step {step} is not inside an epoch of {self.steps_per_epoch} steps.")
        return self._read_ahead(epoch, range(step, self.steps_per_epoch))

    def first_parts(self, steps: int) -> Iterator[NDArray[np.int64]]:
        """Rows of the images of each process's part of the first batches of the first epoch, (B,); none is read."""
        for step in range(min(steps, self.steps_per_epoch)):
            for rank in range(self.world_size):
                yield self._rows(0, *self._part(step, rank))

    def _read_ahead(self, epoch: int, steps: range) -> Iterator[Batch]:
        stop = Event()

        # Whole batches go to the threads, not images: one hand-over for hundreds of images.
        def read(step: int) -> LoadedBatch:
            start, end = self._part(step, self.rank)
            return self._reader.read(self._rows(epoch, start, end), epoch, start, stop)

        for loaded in ordered_map(read, steps, workers=self._workers, ahead=self._prefetch, stop=stop):
            self._note(loaded)
            yield loaded.batch

    def _part(self, step: int, rank: int) -> tuple[int, int]:
        """Rows of the epoch that a process takes in a step: from, and up to but without."""
        start = step * self.batch_size + rank * self.local_batch_size
        return start, start + self.local_batch_size

    def _rows(self, epoch: int, start: int, end: int) -> NDArray[np.int64]:
        """Indices of the images in some rows of an epoch, (end - start,)."""
        rows = self._sampler.rows(epoch, start, end)
        if rows.shape != (end - start,):
            raise ConfigError(
                f"the sampler {type(self._sampler).__name__} gives rows of shape {rows.shape}, but must give the index "
                f"of one image for each of {end - start} rows."
            )
        return rows

    def _note(self, loaded: LoadedBatch) -> None:
        """Count what was corrupt; here and not in the threads, so that the order of the threads does not matter."""
        for index, reason in loaded.corrupt:
            if index not in self._known_corrupt:
                self._known_corrupt.add(index)
                self.corrupt.add(self._source.location(index), reason)
        # A corrupt image was read beside the one that took its place.
        self._read += loaded.batch.size + len(loaded.corrupt)
        self._corrupt_read += len(loaded.corrupt)
        if self._read >= CORRUPT_GRACE and self._corrupt_read > CORRUPT_PART * self._read:
            raise DataError(
                f"{self._corrupt_read} of {self._read} images that were read are corrupt, the first: "
                f"{self.corrupt.entries[0].reason}"
            )


def _check_batch(batch_size: int, rank: int, world_size: int, sampler: Sampler, name: str) -> None:
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank is {rank}, but must lie in [0, {world_size - 1}] with {world_size} processes.")
    if batch_size < 1:
        raise ConfigError(f"{name} is {batch_size}, but must be at least 1.")
    if batch_size % world_size:
        near = max(batch_size // world_size, 1) * world_size
        raise ConfigError(
            f"{name} is {batch_size}, which {world_size} processes cannot share evenly; take {near}, for example."
        )
    if batch_size > len(sampler):
        count = f"{len(sampler)} image{'' if len(sampler) == 1 else 's'}"
        advice = f"set it to {len(sampler)} or less" if len(sampler) > 1 else "training needs more"
        raise ConfigError(f"{name} is {batch_size}, but an epoch of the data set has only {count}; {advice}.")
    if batch_size // world_size % sampler.rows_per_group:
        share = f", {batch_size // world_size} images on each of {world_size} processes" if world_size > 1 else ""
        raise ConfigError(
            f"{name} is {batch_size}{share}, but the rows of {type(sampler).__name__} come in groups of "
            f"{sampler.rows_per_group} that must stay together; "
            f"take a multiple of {sampler.rows_per_group * world_size}."
        )
