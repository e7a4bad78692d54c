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


class Endless(Sampler):
    """Up to 8,192 images, spread over the source, again and again in one epoch, in an order that is new in each pass.

    Between two epochs readers stand still until the last batch is there. Of the thousands of batches that training
    reads in one that is nothing; of the few that these images make, much, and the more of it the more readers.

    Args:
        images: Number of images of the source.

    Attributes:
        once: Number of different images.
    """

    def __init__(self, images: int) -> None:
        self._index = np.unique(np.linspace(0, images - 1, min(images, IMAGES)).astype(np.int64))
        self.once = len(self._index)

    def __len__(self) -> int:
        """Rows in one epoch, more than anybody reads."""
        return 1 << 40

    def rows(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Index of the image in rows ``start`` to ``stop`` of an epoch, (stop - start,)."""
        turn, position = np.divmod(np.arange(*checked_rows(start, stop, len(self))), self.once)
        return self._index[permute(position, self.once, epoch, turn)]


def one_core(source: Source, batch_size: int, seconds: float) -> float:
    """Images a second that one thread reads which does nothing else, after a first pass over them."""
    order = Endless(len(source))
    # So many that they are read twice in the time, but no more than there are.
    batches = [order.rows(0, start, start + batch_size) for start in range(0, order.once - batch_size + 1, batch_size)]
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


def rate(loader: Loader, once: int, seconds: float) -> float:
    """Images a second of a loader, in one epoch.

    Args:
        loader: Gives batches of an `Endless` sampler.
        once: Images that are read before the clock starts, or as many as come in ``seconds``: meanwhile processes
            start, and JPEGs are searched for holes.
        seconds: For these and for those that are counted.
    """
    with closing(loader.batches(0)) as batches:
        begin, images = time.perf_counter(), 0
        while images < once and time.perf_counter() - begin < seconds:
            images += next(batches).size
        begin, images, spent = time.perf_counter(), 0, 0.0
        while spent < seconds:
            images += next(batches).size
            spent = time.perf_counter() - begin
    return images / spent


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
        seconds: For each, after a first pass.
        is_busy: Whether a thread beside holds Python's lock, as a training loop does.

    Raises:
        ConfigError: If the source cannot be sent to processes.
        DataError: If an image cannot be read.
    """
    order = Endless(len(source))
    size = min(batch_size, order.once)
    alone = one_core(source, size, seconds)
    for number in workers:
        for reader in READERS:
            loader = Loader(source, order, batch_size=size, workers=number, reader=reader)
            with busy_lock(is_busy), closing(loader):
                found = rate(loader, order.once, seconds)
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
