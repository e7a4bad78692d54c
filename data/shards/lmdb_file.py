"""The keys and values of an LMDB file, read without the library: a damaged file would crash that, and with it the run.

A file consists of pages. The first two say where the tree of the newest state begins; branch pages lead to leaf pages,
whose nodes hold a key and a value, or the number of the pages of its own that a long value has. All numbers are
little-endian. Everything is read by place and compared with what is there, so that a file that lies is refused.
"""

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.data.formats.names import PackedNames
from facelab.data.formats.raw_file import RawFile
from facelab.errors import CorruptImage, DataError

MAGIC, VERSION = 0xBEEFC0DE, 1
PAGE = struct.Struct("<QHHHH")  # number, -, kind, end of the pointers, beginning of the nodes
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
KINDS = BRANCH | LEAF | OVERFLOW | META
TREE = struct.Struct("<IHH5Q")  # page size (of the first tree), flags, depth, pages of three kinds, entries, root
STATE = struct.Struct("<IIQQ")  # magic, version, address, size of the map
ENDING = struct.Struct("<QQ")  # last page, transaction
NODE = struct.Struct("<HHHH")  # length of the value in two halves, flags, length of the key
LONG_VALUE, SUBTREE, DUPLICATES = 1, 2, 4
NO_ROOT = (1 << 64) - 1
DEEPEST = 64


class LmdbFile:
    """The entries of an LMDB file, in the order of their keys.

    Args:
        path: The file, or the folder that holds it as ``data.mdb``.

    Raises:
        DataError: If it is no LMDB file, is cut off or damaged, or has several values for a key.

    Attributes:
        path: The file.
        keys: N keys.
        places: Where each value begins, int64, (N,).
        sizes: Bytes of each value, int64, (N,).
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "data.mdb" if path.is_dir() else path
        self._file = RawFile(self.path)
        self._seen = set[int]()
        places, sizes = array("q"), array("q")
        try:
            self._page_size, root, entries = self._newest_state()
            self._pages = self._file.size // self._page_size + 1
            self.keys = PackedNames.of(self._entries(root, places, sizes))
        except CorruptImage as error:  # of a read past the end
            raise DataError(f"{error} The file is cut off or damaged.") from None
        self.places: NDArray[np.int64] = np.array(places, np.int64)
        self.sizes: NDArray[np.int64] = np.array(sizes, np.int64)
        if len(self.keys) != entries:
            raise DataError(f"{self.path}: is damaged: it says {entries} entries, but has {len(self.keys)}.")

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``.

        Raises:
            CorruptImage: If the file ends earlier, or cannot be read.
        """
        return self._file.read(offset, size)

    def _newest_state(self) -> tuple[int, int, int]:
        """Page size, page of the root, and entries of the state that was written last."""
        start = self._file.read(0, min(self._file.size, 1 << 17))
        first = self._state(start, 0)
        if first is None:
            raise DataError(f"{self.path}: is no LMDB file.")
        page_size = first[1]
        if page_size & (page_size - 1) or not 512 <= page_size <= 1 << 16:
            raise DataError(f"{self.path}: is damaged: it says pages of {page_size} bytes.")
        # The two take turns, so that one is whole when a program is stopped while it writes the other.
        second = self._state(start, page_size)
        newest = first if second is None or first[0] > second[0] else second
        _, _, flags, entries, root, last = newest
        if (last + 1) * page_size > self._file.size:
            raise DataError(
                f"{self.path}: is cut off: it has {self._file.size} of the {(last + 1) * page_size} bytes that it says."
            )
        if flags & DUPLICATES:
            raise DataError(f"{self.path}: has several values for a key, which no set of images has.")
        return page_size, root, entries

    def _state(self, start: bytes, at: int) -> tuple[int, int, int, int, int, int] | None:
        """Transaction, page size, flags, entries, root and last page of a state; None if there is none."""
        end = at + PAGE.size + STATE.size + 2 * TREE.size + ENDING.size
        if end > len(start) or not PAGE.unpack_from(start, at)[2] & META:
            return None
        at += PAGE.size
        magic, version, _, _ = STATE.unpack_from(start, at)
        if magic != MAGIC:
            return None
        if version != VERSION:
            raise DataError(f"{self.path}: is LMDB of version {version}; version {VERSION} is read.")
        free, main = (TREE.unpack_from(start, at + STATE.size + number * TREE.size) for number in (0, 1))
        last, transaction = ENDING.unpack_from(start, at + STATE.size + 2 * TREE.size)
        return transaction, free[0], main[1], main[6], main[7], last

    def _entries(self, root: int, places: "array[int]", sizes: "array[int]") -> Iterator[bytes]:
        """The keys in their order; their values' places and sizes are added to the arrays."""
        waiting = [(root, 0)] if root != NO_ROOT else []
        while waiting:
            number, depth = waiting.pop()
            page, kind = self._page(number, depth)
            nodes = self._nodes(page, number)
            if kind == BRANCH:
                # The last one first, since the next one is taken from the end.
                waiting += [(low | high << 16 | top << 32, depth + 1) for low, high, top, _, _ in reversed(nodes)]
                continue
            for low, high, flags, key, at in nodes:
                size = low | high << 16
                if flags & (SUBTREE | DUPLICATES):
                    raise self._damaged(number, "it holds a database in the database")
                place = self._long_value(page, at, size, number) if flags & LONG_VALUE else number * len(page) + at
                if not flags & LONG_VALUE and at + size > len(page):
                    raise self._damaged(number, "a value leads out of it")
                places.append(place)
                sizes.append(size)
                yield key

    def _page(self, number: int, depth: int) -> tuple[bytes, int]:
        """A page of the tree, and its kind."""
        if number >= self._pages or depth > DEEPEST:
            raise self._damaged(number, "it lies outside of the file" if depth <= DEEPEST else "the tree is too deep")
        # Each page has one place in a tree, so that a walk through a circle ends here.
        if number in self._seen:
            raise self._damaged(number, "two ways lead to it")
        self._seen.add(number)
        page = self._file.read(number * self._page_size, self._page_size)
        own, _, flags, _, _ = PAGE.unpack_from(page)
        if own != number or flags & KINDS not in (BRANCH, LEAF):
            raise self._damaged(number, "it is no page of a tree")
        return page, flags & KINDS

    def _nodes(self, page: bytes, number: int) -> list[tuple[int, int, int, bytes, int]]:
        """Of each node three numbers, the key, and where in the page its value begins."""
        end = PAGE.unpack_from(page)[3]
        if not PAGE.size <= end <= len(page):
            raise self._damaged(number, "its pointers lead out of it")
        found, taken = [], end
        for (start,) in struct.iter_unpack("<H", page[PAGE.size : end - end % 2]):
            if not end <= start <= len(page) - NODE.size:
                raise self._damaged(number, "a node leads out of it")
            low, high, flags, length = NODE.unpack_from(page, start)
            at = start + NODE.size + length
            taken += NODE.size + length
            # Nodes that share their bytes would make gigabytes of keys of one page.
            if at > len(page) or taken > len(page):
                raise self._damaged(number, "a key leads out of it, or its nodes lie in each other")
            found.append((low, high, flags, page[at - length : at], at))
        return found

    def _long_value(self, page: bytes, at: int, size: int, number: int) -> int:
        """Where a value begins that has pages of its own."""
        if at + 8 > len(page):
            raise self._damaged(number, "a value leads out of it")
        (first,) = struct.unpack_from("<Q", page, at)
        place = first * self._page_size + PAGE.size
        if first >= self._pages or place + size > self._file.size:
            raise self._damaged(number, f"a value of {size} bytes leads out of the file")
        return int(place)

    def _damaged(self, number: int, why: str) -> DataError:
        return DataError(f"{self.path}: is damaged: page {number}: {why}.")
