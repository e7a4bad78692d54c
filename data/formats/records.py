"""The RecordIO container of MXNet: records by key, and the label that InsightFace puts before each image.

A record is ``magic, kind and length, content, zeros up to a multiple of 4``, all words little-endian. Where the content
holds the magic number at a multiple of 4, the number is taken out and the record is split there, so that a reader who
lost its place finds the next record. The kind tells whole records (0) from first (1), middle (2) and last (3) parts.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from facelab.data.formats.mapped_file import MappedFile
from facelab.data.formats.writing import written_files
from facelab.errors import CorruptImage, DataError
from facelab.outside.file import opened

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
PREFIX = struct.Struct("<II")  # magic; kind in the upper 3 bits, length in the lower 29
LENGTH_BITS = 29
LONGEST = (1 << LENGTH_BITS) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
LABEL = struct.Struct("<IfQQ")  # number of labels (0: one, in the next field), label, id, second id
EXACT = 1 << 24  # float32 tells neighbouring whole numbers apart up to here
MOST_COMPARED = 1_000_000  # records of which every end is compared with the next beginning: a page for each
BLOCK = 1 << 22  # bytes of an index read at once
# Possessive quantifiers never step back: a bad line behind megabytes of good ones is found in one pass.
INDEX_LINES = re.compile(rb"(?:(?:[ \t]*+[0-9]{1,18}[ \t]++[0-9]{1,18})?+[ \t]*+\r?+\n)*+")

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """What MXNet's ``recordio.unpack`` gives.

    Attributes:
        labels: float32, (L,); one label if ``scalar``.
        scalar: The label stands in the header's own field (flag 0) and not behind the header.
        image: The encoded image, empty for header and identity records.
        id: First id field; InsightFace writes the key.
        id2: Second id field.
    """

    labels: NDArray[np.float32]
    scalar: bool
    image: bytes
    id: int = 0
    id2: int = 0

    @property
    def flag(self) -> int:
        """Number of labels behind the header, 0 for a scalar label."""
        return 0 if self.scalar else len(self.labels)

    def packed(self) -> bytes:
        """The content of the record, as MXNet's ``recordio.pack`` writes it."""
        field = float(self.labels[0]) if self.scalar else 0.0
        behind = b"" if self.scalar else self.labels.astype("<f4").tobytes()
        return LABEL.pack(self.flag, field, self.id, self.id2) + behind + self.image


def unpack(content: bytes, where: str) -> Record:
    """The labels and the image of a record's content.

    Args:
        content: The record's bytes.
        where: Names the record in messages.

    Raises:
        CorruptImage: If the content is too short for the labels that it announces.
    """
    if len(content) < LABEL.size:
        raise CorruptImage(f"{where}: has {len(content)} bytes, too few for the label of {LABEL.size} bytes.")
    count, field, identity, identity2 = LABEL.unpack_from(content)
    start = LABEL.size + 4 * count
    if start > len(content):
        raise CorruptImage(f"{where}: announces {count} labels, but has only {len(content)} bytes.")
    labels = np.frombuffer(content, "<f4", count, LABEL.size) if count else np.array([field], np.float32)
    return Record(labels.astype(np.float32, copy=False), count == 0, content[start:], identity, identity2)


class RecordFile:
    """Records of a ``.rec`` file by row, in the order of their keys.

    Args:
        path: The ``.rec`` file; it is memory-mapped.
        index: Its ``.idx`` file; by default the one beside it. Where that does not exist, the records are found by
            reading the whole file once, and numbered from 0.

    Raises:
        DataError: If a file is missing, the index has a bad line, or a record is cut off or damaged.

    Attributes:
        keys: Key of each record, int64, (N,), ascending.
        offsets: Where each record begins, int64, (N,).
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        self.path = path
        self._file = MappedFile(path)
        beside = path.with_suffix(".idx")
        self.index = index if index is not None or not beside.exists() else beside
        if self.index is None:
            self.offsets = np.fromiter(scan(self._file), np.int64)
            self.keys = np.arange(len(self.offsets))
        else:
            self.keys, self.offsets = _read_index(self.index, self._file)
            self._check_complete(self.index)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.keys)

    def where(self, row: int) -> str:
        """The record's place for messages: file, key and offset."""
        return f"{self.path} record {self.keys[row]} (offset {self.offsets[row]})"

    def content(self, row: int) -> bytes:
        """The bytes of a record, its parts joined.

        Raises:
            CorruptImage: If the record is cut off or damaged.
        """
        parts, _ = walk(self._file, int(self.offsets[row]))
        return MAGIC_BYTES.join(self._file.view(start, stop) for start, stop in parts)

    def record(self, row: int) -> Record:
        """Labels and image of a record.

        Raises:
            CorruptImage: If the record is cut off or damaged.
        """
        return unpack(self.content(row), self.where(row))

    def rows(self, keys: Integers) -> Integers:
        """The row of each key.

        Raises:
            DataError: If a key does not occur.
        """
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        wrong = np.flatnonzero(self.keys[rows] != keys)
        if len(wrong):
            raise DataError(f"{self.path}: there is no record {keys[wrong[0]]} ({len(wrong)} records are missing).")
        return rows

    def words(self, rows: Integers, place: int) -> NDArray[np.uint32]:
        """Word ``place`` of the content of each record, without reading the rest; 0 past the end of the file.

        Places -2 and -1 are the magic number, and kind and length of the record's first part.
        """
        words, at = self._file.words(), self.offsets[rows] // 4 + PREFIX.size // 4 + place
        inside = at < len(words)
        return np.where(inside, words[np.where(inside, at, 0)], np.uint32(0))

    def is_sound(self, rows: Integers) -> NDArray[np.bool_]:
        """Whether the first part of each record begins and ends inside the file."""
        words = self.words(rows, -1)
        ends = self.offsets[rows] + PREFIX.size + (words & LONGEST)
        return np.asarray((self.words(rows, -2) == MAGIC) & (words >> LENGTH_BITS <= FIRST) & (ends <= self._file.size))

    def _check_complete(self, index: Path) -> None:
        """Refuse an index that leaves records out: all that follow its last one, or some in between."""
        if not len(self):
            return
        again = f"remove {index.name} and write it anew with `facelab data index {self.path}`"
        last = int(self.offsets.max())
        # Walked through, and not taken from its length: the last record may have several parts.
        end = walk(self._file, last)[1]
        if end < self._file.size:
            raise DataError(
                f"{index}: ends early: its last record ends at byte {end}, but {self.path.name} has "
                f"{self._file.size} bytes; {again}."
            )
        if len(self) > MOST_COMPARED:
            return
        rows = np.argsort(self.offsets, kind="stable")
        starts, words = self.offsets[rows], self.words(rows, -1)
        ends = starts + PREFIX.size + (words & LONGEST)
        ends += -ends % 4
        # Where a record of several parts ends is not in its first length, so only whole ones are compared.
        before_gap = (ends[:-1] < starts[1:]) & (words[:-1] >> LENGTH_BITS == WHOLE) & self.is_sound(rows[:-1])
        # A gap may be anything; it is a record that was left out only if one begins there.
        missing = np.flatnonzero(before_gap & (self._word_at(ends[:-1]) == MAGIC))
        if len(missing):
            raise DataError(f"{index}: leaves out the record at byte {ends[missing[0]]}; {again}.")

    def _word_at(self, offsets: Integers) -> NDArray[np.uint32]:
        words = self._file.words()
        return words[np.minimum(offsets // 4, len(words) - 1)]


def walk(file: MappedFile, offset: int) -> tuple[list[tuple[int, int]], int]:
    """Where the content of each part of the record at ``offset`` begins and ends, and where the next record begins.

    Raises:
        CorruptImage: If there is no record, or it is cut off; the message gives the offset.
    """
    kind, start, stop = _part(file, offset)
    parts = [(start, stop)]
    if kind in (MIDDLE, LAST):
        raise CorruptImage(f"{file.path}: offset {offset} lies inside a record of several parts, not at its beginning.")
    while kind in (FIRST, MIDDLE):  # every part moves on by at least 8 bytes, so this ends with the file
        part = _padded(start, stop)
        kind, start, stop = _part(file, part)
        if kind not in (MIDDLE, LAST):
            raise CorruptImage(f"{file.path}: the record at offset {offset} breaks off; at {part} another one begins.")
        parts.append((start, stop))
    return parts, _padded(start, stop)


def _padded(start: int, stop: int) -> int:
    return stop + (start - stop) % 4


def _part(file: MappedFile, offset: int) -> tuple[int, int, int]:
    """Kind of the part at ``offset``, and where its content begins and ends."""
    start = offset + PREFIX.size
    if start > file.size:
        raise CorruptImage(
            f"{file.path}: is cut off: a record begins at offset {offset}, the file has {file.size} bytes."
        )
    magic, word = PREFIX.unpack(file.view(offset, start))
    kind, stop = word >> LENGTH_BITS, start + (word & LONGEST)
    if magic != MAGIC or kind > LAST:
        raise CorruptImage(f"{file.path}: no record begins at offset {offset}; the file or its index is damaged.")
    if stop > file.size:
        raise CorruptImage(
            f"{file.path}: is cut off: the record at offset {offset} ends at {stop}, the file has {file.size} bytes."
        )
    return kind, start, stop


def scan(file: MappedFile) -> Iterator[int]:
    """Where each record begins, found by walking through the file.

    Raises:
        CorruptImage: Where a record is cut off or damaged.
    """
    at = 0
    while at < file.size:
        yield at
        at = walk(file, at)[1]


def write_index(path: Path) -> Path:
    """Write the ``.idx`` file that a ``.rec`` file lacks; records are numbered from 0 as MXNet's rec2idx does.

    Returns:
        The new file, beside the old one.

    Raises:
        DataError: If there is an index, the records are damaged, or the index cannot be written.
    """
    target = path.with_suffix(".idx")
    with written_files(target) as (part,):
        part.write_text("".join(f"{key}\t{offset}\n" for key, offset in enumerate(scan(MappedFile(path)))))
    return target


def _read_index(path: Path, file: MappedFile) -> tuple[Integers, Integers]:
    """Keys and offsets of an index, ascending by key."""
    try:
        with opened(path) as lines:
            table = np.concatenate([np.zeros((0, 2), np.int64), *_index_blocks(path, lines)])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    keys, offsets = table[np.argsort(table[:, 0], kind="stable")].T
    outside = np.flatnonzero((offsets < 0) | (offsets % 4 != 0) | (offsets + PREFIX.size > file.size))
    if len(outside):
        raise DataError(
            f"{path}: record {keys[outside[0]]} should begin at offset {offsets[outside[0]]}, where {file.path.name} "
            f"({file.size} bytes) cannot have one; it is cut off or the index belongs to another file."
        )
    twice = np.flatnonzero(np.diff(keys) == 0)
    if len(twice):
        raise DataError(f"{path}: key {keys[twice[0]]} occurs twice.")
    return keys, offsets


def _index_blocks(path: Path, file: BinaryIO) -> Iterator[Integers]:
    """Keys and offsets of some megabytes of lines at a time, (N, 2)."""
    before = 0
    while lines := file.readlines(BLOCK):
        block = b"".join(lines).rstrip() + b"\n"
        good = INDEX_LINES.match(block)
        end = good.end() if good else 0
        if end < len(block):
            line = before + 1 + block.count(b"\n", 0, end)
            shown = block[end:].split(b"\n", 1)[0].decode("ascii", "replace")
            raise DataError(f"{path} line {line}: {shown[:80]!r} is not 'key offset'.")
        before += len(lines)
        if block.strip():
            yield np.fromstring(block.decode("ascii"), np.int64, sep=" ").reshape(-1, 2)
