"""FaceX-Zoo's training list, ``path label`` on each line, held in 18 bytes an image however long the paths are."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Labels
from facelab.data.formats.raw_file import RawFile
from facelab.errors import DataError

Places = NDArray[np.int64]
Bytes = NDArray[np.uint8]

BLOCK = 1 << 24  # bytes parsed at once; bounds the memory of the parser's index arrays
LONGEST_LINE = 8192  # twice the longest path that Linux opens
MOST_DIGITS = 18  # of a label, so that it fits into int64
QUOTE = ord('"')
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
IS_SPACE = np.isin(np.arange(256), np.frombuffer(b" \t\r\v\f", np.uint8))
IS_SEPARATOR = IS_SPACE | np.isin(np.arange(256), np.frombuffer(b",;", np.uint8))


@dataclass(frozen=True)
class ImageLines:
    """The lines of a list that name an image.

    Attributes:
        starts: Where each path begins in the file, int64, (N,).
        lengths: Bytes of each path, uint16, (N,).
        labels: Last field of each line, int64, (N,).
        lines: Lines of the file, blank ones included.
    """

    starts: Places
    lengths: NDArray[np.uint16]
    labels: Labels
    lines: int


class ListFile(Sequence[bytes]):
    """The paths of a training list in its order; the file itself stays on disk and is read where it is needed.

    Blank lines are skipped. The label is the last field, after blanks, a comma or semicolon, so a path may have spaces.
    Double quotes around a path are taken off, and ``\\`` becomes ``/`` in one that has no ``/``.

    Args:
        path: The list.

    Raises:
        DataError: If the list is missing, empty or has a bad line; the message gives its number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RawFile(path)
        self._rows = _joined(list(_parsed_blocks(self._file)))
        if not len(self):
            raise DataError(f"{path}: the list names no image.")

    @property
    def labels(self) -> Labels:
        """Label of each line, int64, (N,)."""
        return self._rows.labels

    def __len__(self) -> int:
        """Number of images in the list."""
        return len(self._rows.starts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Name of image ``index`` as bytes, or the names of a slice."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        name = self._file.read(int(self._rows.starts[index]), int(self._rows.lengths[index]))
        return name if b"/" in name else name.replace(b"\\", b"/")

    def digest(self) -> str:
        """A hash (32 hex digits) of the whole list, labels included."""
        digest = hashlib.blake2b(digest_size=16)
        for at in range(0, self._file.size, BLOCK):
            digest.update(self._file.read(at, min(BLOCK, self._file.size - at)))
        return digest.hexdigest()

    def line(self, index: int) -> int:
        """Number of the line, from 1, that names image ``index``."""
        # Where no line is blank, the number is known; else line feeds are counted, which only messages ask for.
        if self._rows.lines == len(self):
            return index + 1
        start = int(self._rows.starts[index])
        blocks = (self._file.read(at, min(BLOCK, start - at)) for at in range(0, start, BLOCK))
        return 1 + sum(block.count(b"\n") for block in blocks)


def _parsed_blocks(file: RawFile) -> Iterator[ImageLines]:
    at, lines = 0, 0
    while at < file.size:
        block = file.read(at, min(BLOCK, file.size - at))
        if at + len(block) == file.size and not block.endswith(b"\n"):
            block += b"\n"
        whole = block.rfind(b"\n") + 1
        if not whole:
            raise DataError(f"{file.path} line {lines + 1}: is longer than {LONGEST_LINE} bytes; is this a text file?")
        # What follows the last line feed is read again with the next block, as the beginning of its first line.
        rows = _parse(np.frombuffer(block, np.uint8, whole), at, lines, file.path)
        yield rows
        at, lines = at + whole, lines + rows.lines


def _parse(text: Bytes, offset: int, lines_before: int, where: Path) -> ImageLines:
    """Rows of some whole lines.

    Args:
        text: The lines, each with its line feed, uint8.
        offset: Where ``text`` begins in the file.
        lines_before: Lines before ``text``.
        where: Names the list in messages.
    """
    # All lines of a block in one NumPy operation each, not line by line: lists have up to a hundred million.
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate(([len(BYTE_ORDER_MARK) if _has_mark(text, offset) else 0], ends[:-1] + 1))
    _refuse_long(starts, ends, lines_before, where)
    ends = _trimmed_right(text, starts, ends)
    starts = _trimmed_left(text, starts, ends)
    # FaceX-Zoo's reader takes a blank line for the end of the list; here it is only passed over.
    kept = np.flatnonzero(ends > starts)
    lines, starts, ends = len(ends), starts[kept], ends[kept]
    labels, digits = _trailing_number(text, starts, ends)
    path_ends = _trimmed_right(text, starts, digits, IS_SEPARATOR)
    bad = np.flatnonzero((digits == ends) | (path_ends == digits) | (path_ends == starts))
    if len(bad):
        line = text[starts[bad[0]] : ends[bad[0]]].tobytes().decode("utf-8", "replace")
        if "\0" in line:
            raise DataError(f"{where}: is not a text file, and so no list of images.")
        raise DataError(
            f"{where} line {lines_before + int(kept[bad[0]]) + 1}: {line[:80]!r} is not 'path label' with a whole "
            "number from 0 as label."
        )
    quoted = (text[starts] == QUOTE) & (text[path_ends - 1] == QUOTE) & (path_ends - starts > 2)
    starts, path_ends = starts + quoted, path_ends - quoted
    return ImageLines(starts + offset, (path_ends - starts).astype(np.uint16), labels, lines)


def _has_mark(text: Bytes, offset: int) -> bool:
    return offset == 0 and text[: len(BYTE_ORDER_MARK)].tobytes() == BYTE_ORDER_MARK


def _refuse_long(starts: Places, ends: Places, lines_before: int, where: Path) -> None:
    long = np.flatnonzero(ends - starts > LONGEST_LINE)
    if len(long):
        line = lines_before + int(long[0]) + 1
        raise DataError(f"{where} line {line}: is longer than {LONGEST_LINE} bytes; is this a text file?")


def _trimmed_right(text: Bytes, starts: Places, ends: Places, skipped: NDArray[np.bool_] = IS_SPACE) -> Places:
    """``ends`` moved left over white space or other bytes, not beyond ``starts``."""
    ends = ends.copy()
    active = np.flatnonzero(ends > starts)
    while len(active):
        active = active[skipped[text[ends[active] - 1]]]
        ends[active] -= 1
        active = active[ends[active] > starts[active]]
    return ends


def _trimmed_left(text: Bytes, starts: Places, ends: Places) -> Places:
    """``starts`` moved right over white space, not beyond ``ends``."""
    starts = starts.copy()
    active = np.flatnonzero(starts < ends)
    while len(active):
        active = active[IS_SPACE[text[starts[active]]]]
        starts[active] += 1
        active = active[starts[active] < ends[active]]
    return starts


def _trailing_number(text: Bytes, starts: Places, ends: Places) -> tuple[Labels, Places]:
    """The decimal number at the end of each line, and where its digits begin: at ``ends`` if there is none."""
    numbers, digits = np.zeros(len(ends), np.int64), ends.copy()
    active = np.arange(len(ends))
    for power in range(MOST_DIGITS):
        active = active[digits[active] > starts[active]]
        digit = text[digits[active] - 1] - np.uint8(ord("0"))  # other characters wrap around to 10 or more
        active, digit = active[digit < 10], digit[digit < 10]
        if not len(active):
            break
        numbers[active] += digit.astype(np.int64) * 10**power
        digits[active] -= 1
    return numbers, digits


def _joined(blocks: list[ImageLines]) -> ImageLines:
    """One table of several; an empty one for an empty file."""
    empty = ImageLines(np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, np.int64), 0)
    return ImageLines(
        np.concatenate([block.starts for block in blocks or [empty]]),
        np.concatenate([block.lengths for block in blocks or [empty]]),
        np.concatenate([block.labels for block in blocks or [empty]]),
        sum(block.lines for block in blocks),
    )
