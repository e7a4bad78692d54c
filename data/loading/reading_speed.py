"""How fast a source is read, by threads and by processes, and how many of them are enough."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Event, Thread
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Sampler, Source
from facelab.data.loading.keyed_random import permute
from facelab.data.loading.loader import Loader
from facelab.data.loading.samplers import checked_rows
from facelab.threads import cores

READERS: tuple[Literal["threads", "processes"], ...] = ("threads", "processes")
IMAGES = 8192
"""Images that are read again and again, spread over the source: as many as a page cache holds for certain."""
ENOUGH = 0.9
"""Of the fastest rate; what more workers add to that is not worth their cores."""


@dataclass(frozen=True)
class Speed:
    """How fast a number of workers reads.

    Attributes:
        reader: Who reads.
        workers: How many of them.
        rate: Images a second, after a first pass.
        share: The same as a multiple of what one core decodes that does nothing else.
    """

    reader: Literal["threads", "processes"]
    workers: int
    rate: float
    share: float


class Some(Sampler):
    """Up to 8,192 images, spread over the source, in an order that is new in each epoch.

    Args:
        images: Number of images of the source.
    """

    def __init__(self, images: int) -> None:
        self._index = np.unique(np.linspace(0, images - 1, min(images, IMAGES)).astype(np.int64))

    def __len__(self) -> int:
        """Rows in one epoch."""
        return len(self._index)

    def rows(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Index of the image in rows ``start`` to ``stop`` of an epoch, (stop - start,)."""
        return self._index[permute(np.arange(*checked_rows(start, stop, len(self))), len(self), epoch)]


def one_core(source: Source, batch_size: int, seconds: float) -> float:
    """Images a second that one thread reads which does nothing else, after a first pass over them."""
    some = Some(len(source))
    # So many that they are read twice in the time, but no more than there are.
    batches = [some.rows(0, start, start + batch_size) for start in range(0, len(some) - batch_size + 1, batch_size)]
    begin, done = time.perf_counter(), 0
    while done < len(batches) and time.perf_counter() - begin < seconds / 2:
        source.read_many(batches[done])
        done += 1
    begin, images = time.perf_counter(), 0
    for number in count():
        source.read_many(batches[number % done])
        images += batch_size
        spent = time.perf_counter() - begin
        if spent > seconds / 2:
            break
    return images / spent


def rate(loader: Loader, seconds: float) -> float:
    """Images a second of a loader, after a first epoch or as many seconds of it.

    In that one processes start, and JPEGs are searched for holes.
    """
    with closing(loader.batches(0)) as batches:
        begin = time.perf_counter()
        for _ in batches:
            if time.perf_counter() - begin > seconds:
                break
    images, begin, spent = 0, time.perf_counter(), 0.0
    for epoch in count(1):
        with closing(loader.batches(epoch)) as batches:
            for batch in batches:
                images, spent = images + batch.size, time.perf_counter() - begin
                if spent > seconds:
                    return images / spent
    raise AssertionError("epochs have no end")


@contextmanager
def busy_lock(is_wanted: bool = True) -> Iterator[None]:
    """While the block lasts, a thread runs small pieces of Python code, as a training loop on a GPU does."""
    stop = Event()

    def spin() -> None:
        while not stop.is_set():
            for _ in range(1000):
                len("abc")

    thread = Thread(target=spin, daemon=True)
    if is_wanted:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if is_wanted:
            thread.join()


def speeds(source: Source, workers: Iterable[int], batch_size: int, seconds: float, is_busy: bool) -> Iterator[Speed]:
    """Reading speed by the number of workers.

    Args:
        source: What to read.
        workers: Numbers of threads, and of processes, to try.
        batch_size: Images of a batch.
        seconds: For each, after its first epoch.
        is_busy: Whether a thread beside holds Python's lock, as a training loop does.

    Raises:
        ConfigError: If the source cannot be sent to processes.
        DataError: If an image cannot be read.
    """
    size = min(batch_size, len(Some(len(source))))
    alone = one_core(source, size, seconds)
    for number in workers:
        for reader in READERS:
            loader = Loader(source, Some(len(source)), batch_size=size, workers=number, reader=reader)
            with busy_lock(is_busy), closing(loader):
                found = rate(loader, seconds)
            yield Speed(reader, number, found, found / alone)


def recommended(found: Sequence[Speed]) -> Speed:
    """The fewest workers that read nearly as fast as the fastest; threads where both do."""
    enough = ENOUGH * max(speed.rate for speed in found)
    return min(
        (speed for speed in found if speed.rate >= enough), key=lambda speed: (speed.workers, speed.reader != "threads")
    )


def numbers_to_try() -> list[int]:
    """1, 2, 4 and so on, up to the cores that there are, and these."""
    return sorted({1 << power for power in range(cores().bit_length())} | {cores()})
