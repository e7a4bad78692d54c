"""What archives have in common: an index of names and places, made once, and reads of single files."""

import posixpath
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from facelab.data.formats.files import ImageFiles, LeftOut
from facelab.data.formats.image_header import MAX_ENCODED
from facelab.data.formats.names import PackedNames
from facelab.errors import CorruptImage

Member = tuple[bytes, int, int, int]  # name, place, bytes that are stored, bytes of the file


class ArchiveFiles(ImageFiles):
    """The files of an archive by name.

    Names that would lead out of the archive are left out. Where a name occurs twice, the later one counts, as when
    unpacking.

    Args:
        root: The archive, for messages.
        members: Its regular files.
        left_out: What else the archive has; ``members`` may add to it.
    """

    def __init__(self, root: Path, members: Iterable[Member], left_out: LeftOut) -> None:
        self.root = root
        found: dict[bytes, Member] = {}
        for name, place, stored, size in members:
            # ``./a`` and ``a`` are one file.
            key = posixpath.normpath(name)
            if key.startswith((b"/", b"../")) or key == b".." or b"\0" in key:
                left_out.add("a name that leads out of the archive", readable_name(name))
            else:
                found[key] = (key, place, stored, size)
        # Sorted, so that a name is found by bisection: the dictionary would go on taking 200 MB for a million names.
        kept = [found[key] for key in sorted(found)]
        self._names = PackedNames.of(name for name, _, _, _ in kept)
        self._places = np.array([numbers for _, *numbers in kept], np.int64).reshape(-1, 3)
        self.skipped = left_out.sentences(root)

    def names(self) -> Iterator[str]:
        """Names of all files in the archive, sorted."""
        # Names in archives may be any bytes; surrogates carry those that are not UTF-8 there and back.
        return (name.decode("utf-8", "surrogateescape") for name in self._names)

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""
        row = self._row(name)
        return None if row is None else int(self._places[row, 2])

    def read(self, name: str) -> bytes:
        """Content of a file."""
        row = self._row(name)
        if row is None:
            raise CorruptImage(f"{self.where(name)}: there is no such image in the archive.")
        place, stored, size = self._places[row].tolist()
        # The size is only what the archive says; it is refused before memory is taken for it.
        if size > MAX_ENCODED:
            raise CorruptImage(f"{self.where(name)}: has {size:,} bytes, more than the {MAX_ENCODED:,} that are read.")
        return self._content(name, place, stored, size)

    @abstractmethod
    def _content(self, name: str, place: int, stored: int, size: int) -> bytes:
        """Content of a file whose numbers are those of its member.

        Raises:
            CorruptImage: If it cannot be read.
        """

    def _row(self, name: str) -> int | None:
        key = posixpath.normpath(name).encode("utf-8", "surrogateescape")
        row = bisect_left(self._names, key)
        return row if row < len(self._names) and self._names[row] == key else None


def readable_name(name: bytes) -> str:
    """A name for messages."""
    return name[:200].decode("utf-8", "replace")
