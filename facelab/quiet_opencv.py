"""OpenCV without its log, which says on stderr what an exception says anyway, or names no image."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import cv2

_set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # OpenCV 4, 5


class _Stderr:
    """The ``stderr`` of C, to which libjpeg inside of OpenCV writes; Python's own is another, and stays as it is."""

    def __init__(self) -> None:
        self._where: Any = None
        if platform.libc_ver()[0] != "glibc":  # others have no such name, or keep it where nobody may write
            return
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        self._nowhere = libc.fopen(os.devnull.encode(), b"w")
        self._where = ctypes.c_void_p.in_dll(libc, "stderr") if self._nowhere else None
        self._usual = None if self._where is None else self._where.value

    def leave_out(self) -> None:
        """Let C write nowhere."""
        if self._where is not None:
            self._where.value = self._nowhere

    def restore(self) -> None:
        """Let C write where it did."""
        if self._where is not None:
            self._where.value = self._usual


class _Quiet:
    """How many blocks are being run now, in whatever threads: the level is one for all of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before = 0
        self._stderr = _Stderr()

    def enter(self) -> None:
        """The first one turns the log off."""
        with self._lock:
            if not self._inside:
                self._before = _set_level(0)
                self._stderr.leave_out()
            self._inside += 1

    def leave(self) -> None:
        """The last one turns it on again."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stderr.restore()
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
