"""The loader: a source and a sampler -> batches of one process, read ahead, from any step of any epoch."""

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.base import Batch, ImageSet, Pixels, Sampler, Source
from facelab.data.loading.batch_reader import BatchReader, CorruptPolicy, ReadBatch, Task
from facelab.data.loading.ordered_map import ordered_map
from facelab.data.loading.refusals import Refusals
from facelab.data.loading.worker_pool import NoProcessesError, WorkerPool
from facelab.errors import ConfigError, DataError, one_of
from facelab.threads import Reader, Workers, worker_count

CORRUPT_PART = 0.1
CORRUPT_GRACE = 1000
"""After this many images, more than `CORRUPT_PART` of corrupt ones is a broken data set, not a few broken files."""
MANY = 20_000
"""Images from which a start of processes is repaid within the first epoch."""

Corrupt = tuple[tuple[int, str], ...]


class Loader:
    """Batches of one process. The same global batches come whatever the number of processes, threads or restarts.

    Global batch s of an epoch is rows ``s * batch_size`` and on of the sampler; process r takes the r-th part of it.
    Threads or processes do the reading; whichever it is, an error arrives at its batch with the name of the file.
    Threads start at once, but wait for Python's lock between two images while the consumer has it. Processes of their
    own decode as fast as there are cores, see `WorkerPool`.

    Args:
        source: Images and labels.
        sampler: Their order.
        batch_size: Images in one step over all processes.
        rank: Number of this process.
        world_size: Number of processes; must divide ``batch_size``.
        workers: Threads or processes that read, see `facelab.threads.worker_count`.
        reader: ``threads``, ``processes``, or ``auto``: processes for 20,000 images or more that have to be decoded,
            if the source can be sent to them and does not keep what it read (``Source.keeps_runs``), else threads.
        prefetch: Batches that may wait, beside the one that each worker is reading.
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
        workers: Workers = 2,
        reader: Reader = "auto",
        prefetch: int = 4,
        on_corrupt: CorruptPolicy = "error",
        seed: int = 0,
        pin_memory: bool = False,
        quality: NDArray[np.float32] | None = None,
        size_name: str = "batch_size",
    ) -> None:
        one_of("on_corrupt", on_corrupt, ("error", "skip"))
        one_of("reader", reader, ("auto", "threads", "processes"))
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
        self._reader = BatchReader(source, on_corrupt, seed)
        self._pin_memory, self._quality = pin_memory, quality
        self._workers, self._prefetch = worker_count(workers), prefetch
        self._by_processes, self._is_asked = _by_processes(reader, source), reader == "processes"
        self._idle_pool: WorkerPool | None = None
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

    def batches(self, epoch: int, step: int = 0) -> Generator[Batch, None, None]:
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

    def close(self) -> None:
        """End the processes that wait for a next epoch; they end with the loader, too."""
        if self._idle_pool is not None:
            self._idle_pool.close()

    def first_parts(self, steps: int) -> Iterator[NDArray[np.int64]]:
        """Rows of the images of each process's part of the first batches of the first epoch, (B,); none is read."""
        for step in range(min(steps, self.steps_per_epoch)):
            for rank in range(self.world_size):
                yield self._rows(0, *self._part(step, rank))

    def _read_ahead(self, epoch: int, steps: range) -> Generator[Batch, None, None]:
        pool = self._pool() if self._by_processes and steps else None
        for batch, corrupt in self._by_threads(epoch, steps) if pool is None else self._by_pool(pool, epoch, steps):
            self._note(batch.size, corrupt)
            yield batch
            del batch  # its memory may be that of the next one

    def _by_threads(self, epoch: int, steps: range) -> Iterator[tuple[Batch, Corrupt]]:
        stop = Event()

        # Whole batches go to the threads, not images: one hand-over for hundreds of images.
        def read(step: int) -> tuple[Batch, Corrupt]:
            if not self._pin_memory:
                return self._finished(self._reader.read(self._task(epoch, step), stop.is_set))
            pinned = list[Tensor]()

            def memory(shape: tuple[int, ...]) -> Pixels:
                pinned.append(torch.empty(shape, dtype=torch.uint8, pin_memory=True))
                return np.asarray(pinned[0].numpy())

            return self._finished(self._reader.read(self._task(epoch, step), stop.is_set, memory), *pinned)

        yield from ordered_map(read, steps, workers=self._workers, ahead=self._prefetch, stop=stop)

    def _by_pool(self, pool: WorkerPool, epoch: int, steps: range) -> Iterator[tuple[Batch, Corrupt]]:
        try:
            with closing(pool.batches(steps, lambda step: self._task(epoch, step))) as batches:
                yield from map(self._finished, batches)
        finally:
            self._idle_pool = pool  # for the next epoch

    def _pool(self) -> WorkerPool | None:
        """Processes that read, or None where they cannot read this source and nobody insists."""
        pool, self._idle_pool = self._idle_pool, None  # two iterations at a time have one each
        if pool is not None and pool.is_usable:
            return pool
        try:
            return WorkerPool(self._reader, self._workers, self._prefetch, self.local_batch_size)
        except NoProcessesError as error:
            source = f"the source {type(self._source).__name__} cannot be read by other processes ({error})"
            if self._is_asked:
                raise ConfigError(f"data.reader is 'processes', but {source}; set it to threads.") from None
            logging.getLogger(__name__).warning("%s; its images are read by threads.", source)
            self._by_processes = False
            return None

    def _task(self, epoch: int, step: int) -> Task:
        start, end = self._part(step, self.rank)
        return Task(self._rows(epoch, start, end), epoch, start)

    def _finished(self, read: ReadBatch, pinned: Tensor | None = None) -> tuple[Batch, Corrupt]:
        """The batch of what was read, and what was corrupt; the pixels may lie in pinned memory already."""
        quality = None if self._quality is None else self._quality[read.index]
        if quality is not None and np.isnan(quality).any():
            where = self._source.location(int(read.index[np.isnan(quality).argmax()]))
            raise DataError(f"{where}: the image has no quality score; score the set anew.")
        image = torch.from_numpy(read.pixels) if pinned is None else pinned
        if self._pin_memory and pinned is None:
            image = image.pin_memory()
        batch = Batch(
            # A view: (B, H, W, 3) in memory is what PyTorch calls channels_last.
            image=image.permute(0, 3, 1, 2),
            label=torch.from_numpy(np.asarray(self._source.labels[read.index], np.int64)),
            index=torch.from_numpy(read.index),
            quality=None if quality is None else torch.from_numpy(quality),
        )
        return batch, read.corrupt

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

    def _note(self, images: int, corrupt: Corrupt) -> None:
        """Count what was corrupt; here and not where it is read, so that the order of the workers does not matter."""
        for index, reason in corrupt:
            if index not in self._known_corrupt:
                self._known_corrupt.add(index)
                self.corrupt.add(self._source.location(index), reason)
        # A corrupt image was read beside the one that took its place.
        self._read += images + len(corrupt)
        self._corrupt_read += len(corrupt)
        if self._read >= CORRUPT_GRACE and self._corrupt_read > CORRUPT_PART * self._read:
            raise DataError(
                f"{self._corrupt_read} of {self._read} images that were read are corrupt, the first: "
                f"{self.corrupt.entries[0].reason}"
            )


def _by_processes(reader: Reader, source: Source) -> bool:
    if reader != "auto":
        return reader == "processes"
    # Who reads many images at once has them decoded: they are copied as fast as memory goes.
    is_encoded = type(source).read_many is ImageSet.read_many
    return len(source) >= MANY and is_encoded and not source.keeps_runs and hasattr(os, "fork")


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
