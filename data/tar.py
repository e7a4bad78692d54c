"""Reading images out of an uncompressed tar archive without unpacking it."""

import posixpath
import tarfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facelab.data.files import ImageFiles
from facelab.data.names import PackedNames
from facelab.data.raw_file import RawFile
from facelab.errors import CorruptImage, DataError

Member = tuple[bytes, int, int]  # name, offset of the content, bytes


class TarFiles(ImageFiles):
    """Images of a tar archive: an index of names and places, and positional reads.

    Only regular files count. Links, devices, sparse files and names that would lead out of the archive are left out,
    and ``skipped`` says how many and why. Where a name occurs twice, the later one counts, as when unpacking.

    Args:
        path: An uncompressed ``.tar`` file.

    Raises:
        DataError: If it is not one, is compressed, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        self._file = RawFile(path)
        members, self.skipped = _index(path)
        self._names = PackedNames.of(name for name, _, _ in members)
        self._offsets = np.fromiter((offset for _, offset, _ in members), np.int64, len(members))
        self._sizes = np.fromiter((size for _, _, size in members), np.int64, len(members))

    def names(self) -> Iterator[str]:
        """Names of all files in the archive, sorted."""
        return (name.decode("utf-8", "surrogateescape") for name in self._names)

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""
        row = self._row(name)
        return None if row is None else int(self._sizes[row])

    def read(self, name: str) -> bytes:
        """Content of a file."""
        row = self._row(name)
        if row is None:
            raise CorruptImage(f"{self.where(name)}: there is no such image in the archive.")
        return self._file.read(int(self._offsets[row]), int(self._sizes[row]))

    def _row(self, name: str) -> int | None:
        key = posixpath.normpath(name).encode("utf-8", "surrogateescape")
        row = bisect_left(self._names, key)
        return row if row < len(self._names) and self._names[row] == key else None


def _index(path: Path) -> tuple[list[Member], tuple[str, ...]]:
    """The archive's regular files sorted by name, and what was left out."""
    found: dict[bytes, Member] = {}
    refused: Counter[str] = Counter()
    example: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else every member stays in memory
                name = posixpath.normpath(member.name)
                reason = _refusal(member, name)
                if reason:
                    refused[reason] += 1
                    example.setdefault(reason, member.name)
                elif member.isreg():
                    key = name.encode("utf-8", "surrogateescape")
                    found[key] = (key, member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path}: is not an uncompressed tar archive, or is damaged ({error}).") from None
    skipped = tuple(f"{path}: {refused[why]} left out, {why} (first: {example[why]!r})." for why in refused)
    return _within(path, [found[key] for key in sorted(found)]), skipped


def _refusal(member: tarfile.TarInfo, name: str) -> str:
    if name.startswith(("/", "../")) or name == ".." or "\0" in name:
        return "a name that leads out of the archive"
    if member.issym() or member.islnk():
        return "a link"
    if member.issparse():
        return "a sparse file"
    return "" if member.isreg() or member.isdir() else "a device or other special file"


def _within(path: Path, members: list[Member]) -> list[Member]:
    size = path.stat().st_size
    for name, offset, length in members:
        if offset < 0 or length < 0 or offset + length > size:
            shown = name.decode("utf-8", "replace")
            raise DataError(f"{path}: is cut off: '{shown}' should end at byte {offset + length}, the file has {size}.")
    return members
