"""Writing RecordIO files that MXNet and InsightFace read: the same bytes as theirs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from facelab.data.base import Source
from facelab.data.formats.images import decode_image
from facelab.data.formats.records import (
    EXACT,
    FIRST,
    LAST,
    LENGTH_BITS,
    LONGEST,
    MAGIC,
    MAGIC_BYTES,
    MIDDLE,
    PREFIX,
    WHOLE,
    Record,
)
from facelab.data.formats.writing import written_files
from facelab.errors import DataError


class RecordWriter:
    """Appends records to an open ``.rec`` file, and their places to its index. Made by `record_writer`.

    Args:
        records: Open file for the records, at its beginning.
        index: Open file for the index.
    """

    def __init__(self, records: BinaryIO, index: TextIO) -> None:
        self._records = records
        self._index = index
        self._at = 0

    def write(self, key: int, content: bytes) -> None:
        """Append one record.

        Args:
            key: Its number; the caller sees to it that none occurs twice.
            content: Its bytes, shorter than 2^29.

        Raises:
            DataError: If the content is too long for the format.
        """
        if len(content) > LONGEST:
            raise DataError(f"record {key} has {len(content)} bytes; the format holds fewer than 2^29 in one record.")
        data = encoded_record(content)
        self._records.write(data)
        self._index.write(f"{key}\t{self._at}\n")
        self._at += len(data)


@contextmanager
def record_writer(path: Path) -> Iterator[RecordWriter]:
    """Write ``path`` (``.rec``) and the ``.idx`` beside it; they appear when the block ends well, or not at all.

    Raises:
        DataError: If one of them exists, or cannot be written, for example because the disk is full.
    """
    with written_files(path, path.with_suffix(".idx")) as (records, index), _opened(records, index) as writer:
        yield writer


@contextmanager
def _opened(records: Path, index: Path) -> Iterator[RecordWriter]:
    with records.open("wb") as binary, index.open("w", encoding="ascii", newline="\n") as text:
        yield RecordWriter(binary, text)


def encoded_record(content: bytes) -> bytes:
    """A record as it stands in the file: split at the magic number, and filled up to a multiple of 4 bytes."""
    parts = _split(content)
    kinds = [WHOLE] if len(parts) == 1 else [FIRST, *[MIDDLE] * (len(parts) - 2), LAST]
    pieces = [
        PREFIX.pack(MAGIC, kind << LENGTH_BITS | len(part)) + part for kind, part in zip(kinds, parts, strict=True)
    ]
    # All parts but the last end at a multiple of 4, so only the whole is filled up.
    return b"".join(pieces) + bytes(-len(content) % 4)


def _split(content: bytes) -> list[bytes]:
    """Content between the magic numbers that stand at multiples of 4; only there a reader would look for a record."""
    parts, start, found = [], 0, content.find(MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            parts.append(content[start:found])
            start = found + len(MAGIC_BYTES)
        found = content.find(MAGIC_BYTES, found + 1)
    return [*parts, content[start:]]


@dataclass(frozen=True)
class RecordLayout:
    """How a training set is laid out in records.

    Attributes:
        header: Write the header record and the identity records, as InsightFace does; without them every record is an
            image, as im2rec does it.
        array_labels: Write ``[label, 0]`` behind each header, as some InsightFace files have, instead of a scalar.
    """

    header: bool = True
    array_labels: bool = False

    def content(self, label: int, key: int, image: bytes) -> bytes:
        """Content of an image's record."""
        return labelled([label, 0] if self.array_labels else label, key, image)


def labelled(label: float | Sequence[float], key: int, image: bytes = b"") -> bytes:
    """Content of a record with a scalar label or several labels, as MXNet packs it."""
    scalar = not isinstance(label, Sequence)
    return Record(np.atleast_1d(np.array(label, np.float32)), scalar, image, key).packed()


def write_recordio(
    path: Path,
    source: Source,
    encoded: Callable[[int], bytes],
    layout: RecordLayout | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a source as InsightFace does: ``.rec``, ``.idx``, ``.lst`` and ``property``, images sorted by class.

    Args:
        path: The ``.rec`` file.
        source: Labels and places of the images.
        encoded: Gives image ``index`` of the source as JPEG or PNG.
        layout: InsightFace's by default.
        progress: Called with the number of images done.

    Raises:
        DataError: If labels or counts are too large for float32, or the files cannot be written.
    """
    layout = layout or RecordLayout()
    # By class, since an identity record names its images as one range.
    order = np.argsort(source.labels, kind="stable")
    # Record 0 is the header, so the images are counted from 1.
    edges = 1 + np.searchsorted(source.labels[order], np.arange(source.num_classes + 1))
    end = int(edges[-1]) + source.num_classes
    _refuse_inexact(end if layout.header else source.num_classes, layout.header)
    height, width, _ = decode_image(encoded(int(order[0])), source.location(int(order[0]))).shape
    targets = path, path.with_suffix(".idx"), path.with_suffix(".lst"), path.parent / "property"
    with (
        written_files(*targets) as (rec, idx, lst, properties),
        _opened(rec, idx) as writer,
        lst.open("w", encoding="utf-8", errors="surrogateescape") as listing,
    ):
        if layout.header:
            writer.write(0, labelled([float(edges[-1]), end], 0))
        for done, index in enumerate(order.tolist()):
            label, key = int(source.labels[index]), done + layout.header
            writer.write(key, layout.content(label, key, encoded(index)))
            listing.write(f"{key}\t{label}\t{source.name(index)}\n")
            progress(done + 1)
        for person in range(source.num_classes if layout.header else 0):
            key = int(edges[-1]) + person
            writer.write(key, labelled([float(edges[person]), float(edges[person + 1])], key))
        properties.write_text(f"{source.num_classes},{height},{width}")


def _refuse_inexact(largest: int, header: bool) -> None:
    if largest > EXACT:
        what = "a header record that counts" if header else "labels up to"
        hint = "; write the file without header record" if header else ""
        raise DataError(
            f"{what} {largest} cannot be written: float32 holds whole numbers only up to 2^24 = {EXACT}{hint}."
        )
