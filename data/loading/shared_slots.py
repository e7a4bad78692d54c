"""Memory that several processes read batches into: a fixed number of places, each for one batch at a time."""

import mmap
import os
import pickle
import tempfile
import traceback
from typing import Any

import numpy as np

from facelab.data.base import Pixels
from facelab.data.loading.batch_reader import ReadBatch, Task
from facelab.errors import DataError, FacelabError

STRIDE = 1 << 30
"""Bytes from one place to the next. Those that nobody has written take no memory."""
MOST_SAID = 64 << 20
"""Of these, for what is said of a batch."""
EPOCH, POSITION, FAILED, HEIGHT, WIDTH, SAID = range(6)
ROWS = 6


class SharedSlots:
    """Places of batches in a file without a name, mapped by all processes that have it open.

    A place holds a task, as the process that wants it writes it, and then what the one that read it gives: the pixels,
    the images that they show, and behind the pixels a pickle of what was wrong. A process may write to a place from
    the moment when it is told its number until it passes the number on.

    Args:
        handle: The open file, see `shared_memory`.
        count: Number of places.
        batch_size: Images of a batch, B.
    """

    def __init__(self, handle: int, count: int, batch_size: int) -> None:
        self.handle, self.count, self.batch_size = handle, count, batch_size
        width = ROWS + batch_size
        heads = -(-(8 * (1 + count * width)) // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(handle, heads + count * STRIDE)
        shared = mmap.mmap(handle, heads + count * STRIDE)
        self._stopped = np.frombuffer(shared, np.int64, 1)
        self._heads = np.frombuffer(shared, np.int64, count * width, offset=8).reshape(count, width)
        self._contents = np.frombuffer(shared, np.uint8, count * STRIDE, offset=heads).reshape(count, STRIDE)

    @property
    def is_stopped(self) -> bool:
        """Whether nobody wants any more what is being read."""
        return bool(self._stopped[0])

    def stop(self, is_stopped: bool = True) -> None:
        """Say whether anybody still wants what is being read."""
        self._stopped[0] = is_stopped

    def put_task(self, slot: int, task: Task) -> None:
        """Say what is to be read into a place."""
        head = self._heads[slot]
        head[EPOCH], head[POSITION] = task.epoch, task.position
        head[ROWS:] = task.rows

    def task(self, slot: int) -> Task:
        """What is to be read into a place."""
        head = self._heads[slot]
        return Task(head[ROWS:].copy(), int(head[EPOCH]), int(head[POSITION]))

    def memory(self, slot: int, shape: tuple[int, ...]) -> Pixels:
        """A place's room for pixels of a shape (B, H, W, 3).

        Raises:
            DataError: If they do not fit.
        """
        size = int(np.prod(shape))
        if size > STRIDE - MOST_SAID:
            raise DataError(
                f"a batch of {shape[0]} images of {shape[1]}x{shape[2]} takes {size >> 20} MiB, more than the "
                f"{(STRIDE - MOST_SAID) >> 20} that reading processes share for one; set data.reader: threads."
            )
        return self._contents[slot, :size].reshape(shape)

    def put_batch(self, slot: int, batch: ReadBatch) -> None:
        """Say what was read; the pixels are in the place's `memory` already."""
        head = self._heads[slot]
        _, head[HEIGHT], head[WIDTH], _ = batch.pixels.shape
        head[ROWS:] = batch.index
        self._say(slot, batch.corrupt, batch.pixels.size, failed=False)

    def put_error(self, slot: int, error: BaseException) -> None:
        """Say why nothing was read; an error that cannot be sent is replaced by its text."""
        if not isinstance(error, FacelabError):  # a fault of a program, to be found
            error.add_note("".join(traceback.format_exception(error)))
        try:
            pickle.loads(pickle.dumps(error))
        except (pickle.PicklingError, TypeError, AttributeError, ImportError):
            error = RuntimeError(f"{type(error).__name__}: {error}")
        self._say(slot, error, 0, failed=True)

    def error(self, slot: int) -> BaseException | None:
        """What the process raised that should have read a batch, if it did."""
        return self._said(slot, 0) if self._heads[slot, FAILED] else None

    def batch(self, slot: int) -> ReadBatch:
        """What was read where there was no error; its pixels lie in the place."""
        head = self._heads[slot]
        pixels = self.memory(slot, (self.batch_size, int(head[HEIGHT]), int(head[WIDTH]), 3))
        return ReadBatch(pixels, head[ROWS:].copy(), self._said(slot, pixels.size))

    def _say(self, slot: int, value: object, start: int, *, failed: bool) -> None:
        said = pickle.dumps(value)
        head = self._heads[slot]
        head[FAILED], head[SAID] = failed, len(said)
        self._contents[slot, start : start + len(said)] = np.frombuffer(said, np.uint8)

    def _said(self, slot: int, start: int) -> Any:
        return pickle.loads(self._contents[slot, start : start + int(self._heads[slot, SAID])].tobytes())


def shared_memory() -> int:
    """A new file without a name, to be closed by whoever asked for it; gone with the last process that has it open.

    Where the system has such files, it lies in memory, but not in ``/dev/shm``, which containers make small.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("facelab batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
