"""Reading images out of a zip archive without unpacking it."""

import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from facelab.data.formats.archive import ArchiveFiles, Member, readable_name
from facelab.data.formats.files import LeftOut
from facelab.data.formats.raw_file import RawFile
from facelab.errors import CorruptImage, DataError

END = struct.Struct("<4s4H2IH")
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
ENTRY = struct.Struct("<4s6H3I5H2I")
LOCAL = struct.Struct("<4s5H3I2H")
LONGEST_COMMENT = 0xFFFF
IN_EXTRA, ZIP64 = 0xFFFFFFFF, 1  # a number that stands in the extra field, whose kind is 1
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 0x1, 0x800
UNIX = 3
MAX_DIRECTORY = 1 << 31  # bytes


class ZipFiles(ArchiveFiles):
    """Images of a zip archive: its directory is read once, files when they are asked for.

    Stored and deflated files count. Links, encrypted files, other compression and names that would lead out of the
    archive are left out, and ``skipped`` says how many and why.

    Args:
        path: A ``.zip`` file.

    Raises:
        DataError: If it is not one, is cut off, has several parts, or its directory is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._file = RawFile(path)
        left_out = LeftOut()
        try:
            super().__init__(path, _members(self._file, left_out), left_out)
        except (struct.error, CorruptImage) as error:
            raise DataError(f"{path}: is not a zip archive, or is damaged ({error}).") from None

    def _content(self, name: str, place: int, stored: int, size: int) -> bytes:
        header = LOCAL.unpack(self._file.read(place, LOCAL.size))
        if header[0] != b"PK\3\4":
            raise CorruptImage(f"{self.where(name)}: the archive is damaged: no file begins at byte {place}.")
        # Name and extra field may have other lengths here than in the directory.
        data = self._file.read(place + LOCAL.size + header[9] + header[10], stored)
        if header[3] != DEFLATED:
            return data
        try:
            # Negative: bare deflate data, without the header of zlib. One byte more than announced shows a wrong size,
            # and no more is unpacked of an archive that would fill the memory.
            expand = zlib.decompressobj(-zlib.MAX_WBITS)
            content = expand.decompress(data, size + 1)
        except zlib.error as error:
            raise CorruptImage(f"{self.where(name)}: cannot be unpacked ({error}).") from None
        if len(content) != size or not expand.eof:
            raise CorruptImage(f"{self.where(name)}: does not unpack to the {size} bytes that the archive says.")
        return content


def _members(file: RawFile, left_out: LeftOut) -> Iterator[Member]:
    count, length, start, shift = _directory(file)
    directory, at = file.read(start, length), 0
    for _ in range(count):
        entry = ENTRY.unpack_from(directory, at)
        signature, made, _, flags, method, _, _, _, stored, size, names, extras, comment, _, _, mode, place = entry
        if signature != b"PK\1\2":
            raise struct.error(f"its directory is damaged at byte {start + at}")
        at += ENTRY.size
        name, extra = directory[at : at + names], directory[at + names : at + names + extras]
        at += names + extras + comment
        size, stored, place = _long_numbers((size, stored, place), extra)
        # All files lie before the directory.
        if place + shift + LOCAL.size + stored > start or (method == STORED and size != stored):
            raise struct.error(f"'{readable_name(name)}' does not lie inside it")
        # Without the flag a name is in code page 437 by the standard, but many programs write UTF-8 and do not say so.
        name = name if flags & UTF8 or _is_utf8(name) else name.decode("cp437").encode()
        # On Unix a backslash is a letter of a name; elsewhere some programs write it between folders, against the
        # standard.
        name = name if made >> 8 == UNIX else name.replace(b"\\", b"/")
        why = _why_not(flags, method, mode >> 16 if made >> 8 == UNIX else 0)
        if why:
            left_out.add(why, readable_name(name))
        elif not name.endswith(b"/"):
            yield name, place + shift, stored, size


def _directory(file: RawFile) -> tuple[int, int, int, int]:
    """Entries, bytes and place of the directory, and what must be added to the places in it."""
    # The end record stands before a comment of unknown length, so it is looked for from the end.
    tail_size = min(file.size, END.size + LONGEST_COMMENT)
    tail = file.read(file.size - tail_size, tail_size)
    found = tail.rfind(b"PK\5\6")
    if found < 0:
        raise struct.error("there is no end of a directory")
    at = file.size - tail_size + found
    _, disk, first, _, count, length, start, _ = END.unpack_from(tail, found)
    # Numbers that are all ones stand in the record of ZIP64 instead.
    if IN_EXTRA in (length, start) or count == 0xFFFF:
        _, _, place, _ = LOCATOR.unpack(file.read(at - LOCATOR.size, LOCATOR.size))
        signature, _, _, _, disk, first, _, count, length, start = END_64.unpack(file.read(place, END_64.size))
        if signature != b"PK\6\6":
            raise struct.error("there is no end of a directory")
        at = place
    shift = at - length - start  # a program may stand before the archive
    # A wrong number of entries is told by the bytes that they would take.
    if disk or first or shift < 0 or length > MAX_DIRECTORY or count * ENTRY.size > length:
        raise struct.error("its directory does not lie in it")
    return count, length, start + shift, shift


def _long_numbers(numbers: tuple[int, int, int], extra: bytes) -> list[int]:
    """Size, stored bytes and place, those that do not fit into 32 bits from the extra field."""
    at = 0
    while IN_EXTRA in numbers and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == ZIP64:
            places = iter(range(at + 4, at + 4 + length, 8))
            return [struct.unpack_from("<Q", extra, next(places))[0] if n == IN_EXTRA else n for n in numbers]
        at += 4 + length
    return list(numbers)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _why_not(flags: int, method: int, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    if flags & ENCRYPTED:
        return "an encrypted file"
    return "" if method in (STORED, DEFLATED) else "a file that is compressed otherwise than by deflate"
