"""A file of which any place can be read, wherever it lies."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Event

from facelab.errors import DataError
from facelab.outside.file import open_regular


class RangedFile(ABC):
    """A file that many threads read by place; a copy in another process opens it anew.

    Attributes:
        name: What messages call it; no password and no signature.
        size: Its size in bytes.
        version: Changes when the file is written anew, as far as whoever keeps it tells; empty if nothing is told.
    """

    name: str
    size: int
    version: str

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``.

        Raises:
            DataError: If they cannot be read; the message names file and offset, and what was tried.
        """

    @property
    def is_near(self) -> bool:
        """Whether a read costs next to nothing beside decoding, so that reading ahead would gain nothing."""
        return False


class LocalFile(RangedFile):
    """A file of this machine. It is opened for each read, since a set may have more shards than a process may open.

    Raises:
        DataError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.name = path, str(path)
        handle = self._open()
        try:
            self.size, self.version = _state(handle)
        finally:
            os.close(handle)

    @property
    def is_near(self) -> bool:
        """Yes."""
        return True

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``."""
        handle = self._open()
        try:
            if _state(handle) != (self.size, self.version):
                raise DataError(f"{self.name}: has changed since it was opened.")
            data = os.pread(handle, size, offset)
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read at offset {offset} ({error.strerror}).") from None
        finally:
            os.close(handle)
        if len(data) != size:
            raise DataError(f"{self.name}: ends at {offset + len(data)}, inside {size} bytes that begin at {offset}.")
        return data

    def _open(self) -> int:
        try:
            return open_regular(self._path)[0]
        except OSError as error:
            raise DataError(f"{self.name}: cannot be opened ({error.strerror}).") from None


def _state(handle: int) -> tuple[int, str]:
    """Size and version; without the time of change of the inode, which a new link or other rights move too."""
    found = os.fstat(handle)
    return found.st_size, f"{found.st_mtime_ns} {found.st_ino}"


class Ahead:
    """Reads a file from its beginning to its end in blocks, and keeps the last one: for many small reads in order.

    Args:
        file: The file.
        block: Bytes that are read at once, unless more are asked for.
        stop: Reading ends early when this is set.
    """

    def __init__(self, file: RangedFile, block: int = 4 << 20, stop: Event | None = None) -> None:
        self._file, self._block, self._stop = file, block, stop
        self.size = file.size
        self._start, self._data = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; fewer at the end of the file.

        Raises:
            DataError: If they cannot be read, or nobody wants them any more.
        """
        if self._stop is not None and self._stop.is_set():
            raise DataError(f"{self._file.name}: reading was given up.")
        start = offset - self._start
        if not 0 <= start <= start + size <= len(self._data):
            stop = min(max(offset + size, offset + self._block), self.size)
            self._data = self._file.read(offset, stop - offset) if stop > offset else b""
            self._start, start = offset, 0
        return self._data[start : start + size]
