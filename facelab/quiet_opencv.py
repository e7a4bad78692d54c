"""OpenCV without its log, which says on stderr what an exception says anyway."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import cv2

_set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # OpenCV 4, 5


class _Quiet:
    """How many blocks are being run now, in whatever threads: the level is one for all of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before = 0

    def enter(self) -> None:
        """The first one turns the log off."""
        with self._lock:
            if not self._inside:
                self._before = _set_level(0)
            self._inside += 1

    def leave(self) -> None:
        """The last one turns it on again."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                _set_level(self._before)


_QUIET = _Quiet()


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keeps OpenCV from writing to stderr while the block lasts; several threads may be in one at once."""
    _QUIET.enter()
    try:
        yield
    finally:
        _QUIET.leave()
