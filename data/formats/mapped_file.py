"""A large file in memory without reading it: any place, from many threads, in any process."""

import mmap

import numpy as np
from numpy.typing import NDArray

from facelab.data.formats.reopened import ReopenedFile
from facelab.outside.file import opened


class MappedFile(ReopenedFile):
    """A read-only memory map; a copy in another process maps the file anew.

    The kernel is told that reads are scattered, and which bytes the next one needs, so that a file larger than memory
    is read image by image and not with all the neighbours.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be opened.
    """

    def _open(self) -> int:
        with opened(self.path) as file:
            self.size = file.seek(0, 2)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else None
        self._bytes = memoryview(self._map) if self._map is not None else memoryview(b"")
        self._advise("MADV_RANDOM", 0, self.size)
        return self.size

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop``, not copied; fewer if the file ends before."""
        self._advise("MADV_WILLNEED", start, stop)
        return self._bytes[start:stop]

    def rows(self, numbers: NDArray[np.int64], into: NDArray[np.uint8]) -> None:
        """Copy some rows of a file that consists of rows of L bytes.

        Args:
            numbers: Which, int64, (B,).
            into: Where to, uint8, (B, L), contiguous.

        Raises:
            IndexError: If there is no such row.
        """
        length = into.shape[1]
        for start in (numbers * length).tolist():  # all are asked for before the first is waited for
            self._advise("MADV_WILLNEED", start, start + length)
        every = np.frombuffer(self._bytes, np.uint8).reshape(-1, length)
        if numbers.min(initial=0) < -len(every) or numbers.max(initial=-1) >= len(every):
            raise IndexError(f"{self.path}: has {len(every)} rows, and not row {numbers.max()} or {numbers.min()}.")
        # With any other mode, NumPy would copy the rows into memory of its own first.
        every.take(numbers % len(every), axis=0, out=into, mode="wrap")

    def words(self) -> NDArray[np.uint32]:
        """The file as little-endian 32-bit words, not copied; up to three bytes at the end are left out."""
        return np.frombuffer(self._bytes[: self.size // 4 * 4], "<u4")

    def _advise(self, advice: str, start: int, stop: int) -> None:
        if self._map is not None and start < min(stop, self.size) and hasattr(mmap, advice):
            page = start - start % mmap.PAGESIZE
            self._map.madvise(getattr(mmap, advice), page, min(stop, self.size) - page)
