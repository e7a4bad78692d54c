"""LMDB files of images and labels, as HSFace is published."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from facelab.data.base import SOURCES, Labels
from facelab.data.formats.archive import readable_name
from facelab.data.formats.files import stamp
from facelab.data.formats.image_header import MAX_ENCODED
from facelab.data.formats.labels import checked_labels
from facelab.data.shards.lmdb_file import LmdbFile
from facelab.data.shards.msgpack_value import LONGEST_HEAD, NUMBER, image_and_label, read_head
from facelab.data.sources.encoded_source import EncodedSource
from facelab.errors import CorruptImage, DataError
from facelab.progress import OnProgress

COUNT, CLASSES = b"__len__", b"__classnum__"
REPORT = 1000  # images between two reports of progress


@SOURCES.register("LMDB")
class LMDB(EncodedSource):
    """Images of an LMDB file whose values are ``(image, label)`` in MessagePack, as HSFace has them.

    Values between the two, such as the features of Vec2Face, are passed over. Keys that are all numbers are taken in
    the order of those. Where ``__len__`` and ``__classnum__`` say how many images and people there are, they must be
    right. No value is unpickled, and no library opens the file.

    Args:
        path: The file, or the folder with ``data.mdb``.
        relabel: Number the classes anew where labels have gaps, instead of refusing the file.
        progress: Called with (images done, all) while labels are read.

    Raises:
        DataError: If the file is no LMDB file, is damaged, or its values are others.
    """

    def __init__(self, path: Path, relabel: bool = False, progress: OnProgress | None = None) -> None:
        self._file = LmdbFile(Path(path))
        self._rows = _image_rows(self._file)
        if not len(self._rows):
            raise DataError(f"{self._file.path}: holds no image.")
        self._places, self._sizes, labels = self._images(progress or (lambda *_: None))
        self.labels, self.num_classes = checked_labels(labels, str(self._file.path), relabel)
        self._check(COUNT, len(self), "images")
        if not relabel:
            self._check(CLASSES, self.num_classes, "people")

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored."""
        row = range(len(self))[index]
        size = int(self._sizes[row])
        if size > MAX_ENCODED:
            raise CorruptImage(
                f"{self.location(row)}: has {size:,} bytes, more than the {MAX_ENCODED:,} that are read."
            )
        return self._file.read(int(self._places[row]), size)

    def location(self, index: int) -> str:
        """File and key."""
        return f"{self._file.path} {self.name(index)}"

    def name(self, index: int) -> str:
        """The key."""
        return f"key {readable_name(self._file.keys[int(self._rows[index])])}"

    def fingerprint(self) -> str:
        """Hash of the keys, sizes and labels of all images."""
        return self._fingerprint

    def revision(self) -> str:
        """The same and the file's stamp."""
        return f"{self._fingerprint} {stamp(self._file.path)}"

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for row in self._rows.tolist():
            digest.update(self._file.keys[row] + b"\0")
        for numbers in (self._sizes, self.labels):
            digest.update(np.ascontiguousarray(numbers).data)
        return digest.hexdigest()

    def _images(self, progress: OnProgress) -> tuple[Labels, Labels, Labels]:
        """Place, bytes and label of each image, int64, (N,)."""
        found = np.empty((3, len(self._rows)), np.int64)
        for index, row in enumerate(self._rows.tolist()):
            start, size = int(self._file.places[row]), int(self._file.sizes[row])
            try:
                place, length, label = image_and_label(lambda at, count: self._file.read(start + at, count), size)  # noqa: B023
            except ValueError as error:
                raise DataError(
                    f"{self.location(index)}: is no image with its label in MessagePack ({error})."
                ) from None
            found[:, index] = start + place, length, label
            if index % REPORT == 0:
                progress(index, len(self._rows))
        return found[0], found[1], found[2]

    def _check(self, key: bytes, count: int, what: str) -> None:
        """Compare a count with what the file says itself, if it does."""
        row = next((row for row, known in enumerate(self._file.keys) if known == key), None)
        if row is None:
            return
        size = min(int(self._file.sizes[row]), LONGEST_HEAD)
        try:
            head = read_head(self._file.read(int(self._file.places[row]), size))
        except ValueError as error:
            raise DataError(f"{self._file.path}: '{key.decode()}' is no number ({error}).") from None
        if head.kind != NUMBER or head.value != count:
            raise DataError(
                f"{self._file.path}: says {head.value} {what}, but has {count}; it is damaged or not whole."
            )


def _image_rows(file: LmdbFile) -> Labels:
    """Rows of the images in the order of their keys, int64, (N,)."""
    rows = np.array([row for row, key in enumerate(file.keys) if not key.startswith(b"__")], np.int64)
    keys = [file.keys[row] for row in rows.tolist()]
    if not all(key.isdigit() and len(key) <= 18 for key in keys):
        return rows
    return rows[np.argsort(np.array([int(key) for key in keys], np.int64), kind="stable")]
