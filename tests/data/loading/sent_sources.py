"""A source that can be sent to other processes, with images that fail in all ways."""

import errno
import os
import signal
import time
from typing import Any

import numpy as np

from facelab.data.base import Pixels, Source


class Numbered(Source):
    """Image ``index`` is filled with its own number, unless it is among those that fail."""

    def __init__(
        self,
        size: int = 100,
        bad: dict[int, type[Exception]] | None = None,
        wide: tuple[int, ...] = (),
        deadly: tuple[int, ...] = (),
        seconds: float = 0.0,
        forks: int | None = None,
    ) -> None:
        self.labels, self.num_classes = np.arange(size, dtype=np.int64) % 10, 10
        self.bad, self.wide, self.deadly, self.seconds, self.forks = bad or {}, wide, deadly, seconds, forks

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Where it is sent to: of so many forks, the system allows no more."""
        self.__dict__.update(state)
        if self.forks is not None:
            fork, left = os.fork, iter(range(self.forks))

            def limited() -> int:
                if next(left, None) is None:
                    raise BlockingIOError(errno.EAGAIN, "no more of them")
                return fork()

            os.fork = limited

    def read(self, index: int) -> Pixels:
        time.sleep(self.seconds)
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.bad:
            raise self.bad[index](f"image {index}: is broken.")
        return np.full((4, 7 if index in self.wide else 6, 3), index % 256, np.uint8)

    def location(self, index: int) -> str:
        return f"image {index}"

    def fingerprint(self) -> str:
        return "numbered"
