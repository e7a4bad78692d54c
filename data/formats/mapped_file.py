"""A large file in memory without reading it: any place, from many threads, in any process."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.outside.file import opened


class MappedFile:
    """A read-only memory map; a copy in another process maps the file anew.

    The kernel is told that reads are scattered, and which bytes the next one needs, so that a file larger than memory
    is read image by image and not with all the neighbours.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with opened(path) as file:
                self.size = file.seek(0, 2)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else None
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}).") from None
        self._bytes = memoryview(self._map) if self._map is not None else memoryview(b"")
        self._advise("MADV_RANDOM", 0, self.size)

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop``, not copied; fewer if the file ends before."""
        self._advise("MADV_WILLNEED", start, stop)
        return self._bytes[start:stop]

    def rows(self, numbers: NDArray[np.int64], length: int) -> NDArray[np.uint8]:
        """Some rows of a file that consists of rows of ``length`` bytes, copied into one array, (B, length).

        Raises:
            IndexError: If there is no such row.
        """
        for start in (numbers * length).tolist():  # all are asked for before the first is waited for
            self._advise("MADV_WILLNEED", start, start + length)
        return np.frombuffer(self._bytes, np.uint8).reshape(-1, length).take(numbers, axis=0)

    def words(self) -> NDArray[np.uint32]:
        """The file as little-endian 32-bit words, not copied; up to three bytes at the end are left out."""
        return np.frombuffer(self._bytes[: self.size // 4 * 4], "<u4")

    def _advise(self, advice: str, start: int, stop: int) -> None:
        if self._map is not None and start < min(stop, self.size) and hasattr(mmap, advice):
            page = start - start % mmap.PAGESIZE
            self._map.madvise(getattr(mmap, advice), page, min(stop, self.size) - page)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to map the file itself: its path and size in bytes."""
        return {"path": self.path, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file again.

        Raises:
            DataError: If its size has changed.
        """
        self.__init__(state["path"])  # type: ignore[misc]
        if self.size != state["size"]:
            raise DataError(f"{self.path}: has {self.size} bytes, but had {state['size']} when it was first opened.")
