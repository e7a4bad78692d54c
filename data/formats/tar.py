"""Reading images out of an uncompressed tar archive without unpacking it.

Python's `tarfile` takes a damaged header in the middle for the end of the archive. Here every header must be sound, and
the archive must have its end: two blocks of zeros with nothing behind them.
"""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from facelab.data.formats.archive import ArchiveFiles, Member, readable_name
from facelab.data.formats.files import LeftOut
from facelab.data.formats.raw_file import RawFile
from facelab.errors import DataError

BLOCK = 512
ZEROS = bytes(BLOCK)
MAX_EXTENSION = 1 << 20  # bytes of a long name or of pax records
MAX_PADDING = 1 << 26  # bytes of zeros behind the end
REGULAR, LINKS, FOLDER, SPECIAL, SPARSE = b"\x0007", b"12", b"5", b"346", b"S"
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"xX", b"g"
A_LINK, A_SPARSE, A_SPECIAL = "a link", "a sparse file", "a device or other special file"


class Readable(Protocol):
    """What can be read by place."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``."""


class TarFiles(ArchiveFiles):
    """Images of a tar archive: an index of names and places, and positional reads.

    Only regular files count. Links, devices, sparse files and names that would lead out of the archive are left out,
    and ``skipped`` says how many and why. Where a name occurs twice, the later one counts, as when unpacking.

    Args:
        path: An uncompressed ``.tar`` file.
        root: What messages call it; ``path`` by default.

    Raises:
        DataError: If it is not one, is compressed, is cut off, or is damaged; the message gives the offset.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self._file = RawFile(path)
        left_out = LeftOut()
        super().__init__(root or path, tar_members(self._file, str(root or path), left_out), left_out)

    def _content(self, name: str, place: int, stored: int, size: int) -> bytes:
        return self._file.read(place, size)


def tar_members(file: Readable, path: str, left_out: LeftOut) -> Iterator[Member]:
    """The regular files of an archive, in its order; the archive is read from its beginning to its end.

    Args:
        file: The archive.
        path: What messages call it.
        left_out: What else there is goes here.

    Raises:
        DataError: As `TarFiles`.
    """
    return _Headers(file, path, left_out).members()


class _Headers:
    """The headers of an archive, one after the other."""

    def __init__(self, file: Readable, path: str, left_out: LeftOut) -> None:
        self.file, self.path, self.left_out = file, path, left_out
        self.at = 0
        self.records: dict[bytes, bytes] = {}  # of pax, for the next file
        self.long_name: bytes | None = None

    def members(self) -> Iterator[Member]:
        """Regular files; what else there is goes into ``left_out``."""
        while (header := self._block()) != ZEROS:
            kind, (name, size), start = header[156:157], header_name_and_size(header), self.at
            if not is_header(header) or size is None:
                raise self._damaged(start - BLOCK, "there is no sound header")
            if kind in LONG_NAME + LONG_LINK + PAX + PAX_GLOBAL:
                self._extension(kind, size)
                continue
            size, sparse = self._by_records(size, start), any(key.startswith(b"GNU.sparse.") for key in self.records)
            # A pax record counts before GNU's long name, and both before the header, whose 100 bytes may have cut the
            # name.
            name = self.records.get(b"path") or self.long_name or name
            self.records, self.long_name = {}, None
            if kind == SPARSE:
                self._sparse_map(header)
                start = self.at
            # Links and folders may have a size, but no content follows them.
            if kind not in LINKS + FOLDER + SPECIAL:
                self._skip(size, readable_name(name))
            # Before POSIX had a kind for folders, they were files whose name ends in a slash.
            if kind in REGULAR and not sparse and not (kind == b"\0" and name.endswith(b"/")):
                yield name, start, size, size
            elif kind not in FOLDER + b"\0":
                why = A_LINK if kind in LINKS else A_SPARSE if kind == SPARSE or sparse else A_SPECIAL
                self.left_out.add(why, readable_name(name))
        self._check_end()

    def _block(self) -> bytes:
        if self.at + BLOCK > self.file.size:
            raise self._damaged(self.at, "the archive breaks off before its end")
        self.at += BLOCK
        return self.file.read(self.at - BLOCK, BLOCK)

    def _skip(self, size: int, what: str) -> None:
        stop = self.at + size
        if stop > self.file.size:
            raise DataError(
                f"{self.path}: is cut off: '{what}' should end at byte {stop}, the file has {self.file.size}."
            )
        self.at = stop + -stop % BLOCK

    def _extension(self, kind: bytes, size: int) -> None:
        """A long name or pax records, which belong to the next file."""
        if size > MAX_EXTENSION:
            raise self._damaged(self.at - BLOCK, f"a name or record of {size:,} bytes is no name")
        start = self.at
        self._skip(size, "a long name")
        content = self.file.read(start, size)
        if kind == LONG_NAME:
            self.long_name = content.split(b"\0")[0]
        elif kind in PAX:
            self.records = dict(self._pax(content, start))

    def _pax(self, content: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
        """Records ``length key=value\\n``."""
        at = 0
        while at < len(content) and content[at] != 0:
            digits = content[at : at + 8].split(b" ")[0]
            length = int(digits) if digits.isdigit() else 0
            record = content[at : at + length]
            key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
            if not equals or len(record) != length or not record.endswith(b"\n"):
                raise self._damaged(start + at, "there is no sound pax record")
            yield key, value
            at += length

    def _by_records(self, size: int, start: int) -> int:
        given = self.records.get(b"size")
        if given is None:
            return size
        if not given.isdigit() or len(given) > 18:
            raise self._damaged(start - BLOCK, "the size of a file is no number")
        return int(given)

    def _sparse_map(self, header: bytes) -> None:
        # In GNU's old form, this byte says that the map of holes goes on in a block of its own, and byte 504 there
        # likewise.
        more = header[482]
        while more:
            more = self._block()[504]

    def _check_end(self) -> None:
        """Refuse what lies behind the end: another archive, or the rest of this one behind a hole."""
        first, last = self.at - BLOCK, self.file.size
        if last - self.at > MAX_PADDING:
            raise self._damaged(first, f"zeros end the archive, but {last - self.at:,} bytes follow")
        while self.at < last:
            part = self.file.read(self.at, min(1 << 20, last - self.at))
            if part.count(0) != len(part):
                raise self._damaged(
                    first, "zeros end the archive, but more follows; two archives are joined by `tar -A`, not by `cat`"
                )
            self.at += len(part)
        if last - first < 2 * BLOCK:
            raise self._damaged(first, "the archive breaks off before its end")

    def _damaged(self, at: int, why: str) -> DataError:
        kind = "is not an uncompressed tar archive" if at == 0 else "is damaged"
        return DataError(f"{self.path}: {kind}: at byte {at} {why}.")


def header_name_and_size(header: bytes) -> tuple[bytes, int | None]:
    """What a header itself says, before long names and pax records; a size that is no number is None."""
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    name = posixpath.join(prefix, name) if header[257:263] == b"ustar\0" and prefix else name
    return name, _number(header[124:136])


def _number(field: bytes) -> int | None:
    """A number of a header, octal or, where the first bit is set, binary; None if it is none or is negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip(b" ")
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        return None if digits else 0
    return int(digits, 8)


def is_header(block: bytes) -> bool:
    """Whether 512 bytes are a header of tar by their checksum, or the zeros that end an archive."""
    return block == ZEROS or (len(block) == BLOCK and _checksum(block) == _number(block[148:156]))


def _checksum(header: bytes) -> int:
    # The field of the checksum itself counts as eight blanks.
    return sum(header) - sum(header[148:156]) + 8 * ord(" ")
