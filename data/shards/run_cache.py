"""Runs of neighbouring images that were read at once, kept for the threads that want others of the same run."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Run = TypeVar("Run")


class RunCache(Generic[Run]):
    """The runs that were used last, up to a number of bytes; of threads that want the same one, one reads it.

    Args:
        capacity: Bytes.
        size: Bytes of a run.
    """

    def __init__(self, capacity: int, size: Callable[[Run], int]) -> None:
        self._capacity, self._size = capacity, size
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._runs: OrderedDict[int, tuple[Run, int]] = OrderedDict()
        self._coming: dict[int, Future[Run]] = {}
        self._asked: OrderedDict[int, int] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Sizes alone; another process has a cache of its own."""
        return {"_capacity": self._capacity, "_size": self._size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """An empty cache."""
        vars(self).update(state)
        self._begin()

    def is_wanted(self, number: int, history: int) -> bool:
        """Whether two images of a run were asked for before, so that reading all of it at once pays.

        A run of which one image alone is wanted, as in a full shuffle, would be read for nothing; two may be chance.

        Args:
            number: Of the run.
            history: So many runs that were asked for last are remembered.
        """
        with self._here():
            before = self._asked.pop(number, 0)
            self._asked[number] = before + 1  # at the end, as the last one
            if len(self._asked) > history:
                self._asked.popitem(last=False)
            return before > 1

    def get(self, number: int, read: Callable[[], Run]) -> Run:
        """A run, read now unless it is here or another thread is reading it.

        Raises:
            DataError: What ``read`` raises, in each thread that waited for it.
        """
        with self._here():
            if number in self._runs:
                self._runs.move_to_end(number)
                return self._runs[number][0]
            is_first = number not in self._coming
            coming = self._coming.setdefault(number, Future())
        if not is_first:
            return coming.result()
        try:
            run = read()
        except BaseException as error:
            coming.set_exception(error)
            # The error knows this frame, and so what was read: with the future in it, they would keep each other.
            del coming
            raise
        else:
            coming.set_result(run)
            with self._lock:
                self._keep(number, run)
            return run
        finally:
            with self._lock:
                del self._coming[number]

    def _keep(self, number: int, run: Run) -> None:
        size = self._size(run)
        self._runs[number] = run, size
        self._bytes += size
        # The newest stays even if it alone is too large, or its reader would read it for each image.
        while self._bytes > self._capacity and len(self._runs) > 1:
            _, (_, freed) = self._runs.popitem(last=False)
            self._bytes -= freed

    def _here(self) -> threading.Lock:
        """The lock of this process: of one that was forked, another thread may have held it at that moment."""
        if self._process != os.getpid():
            self._begin()
        return self._lock
