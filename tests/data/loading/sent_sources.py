"""A source that can be sent to other processes, with images that fail in all ways."""

import os
import signal
import time

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
    ) -> None:
        self.labels, self.num_classes = np.arange(size, dtype=np.int64) % 10, 10
        self.bad, self.wide, self.deadly, self.seconds = bad or {}, wide, deadly, seconds

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
