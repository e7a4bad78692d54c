"""InsightFace's training sets: MXNet RecordIO (``train.rec``, ``train.idx``, ``property``), read without MXNet."""

import hashlib
import logging
import re
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import SOURCES, Labels
from facelab.data.formats.files import stamp
from facelab.data.formats.labels import checked_labels
from facelab.data.formats.records import EXACT, FIRST, LABEL, LENGTH_BITS, LONGEST, Integers, RecordFile
from facelab.data.sources.encoded_source import EncodedSource
from facelab.errors import DataError
from facelab.outside.file import read_regular

MAX_PROPERTY = 4096  # bytes of the property file
MANY = 1_000_000  # images from which labels are taken from the identity records where the file has them
PROBES = 1000  # images whose own label must then agree
FLAG, FIELD, FIRST_LABEL, SECOND_LABEL = 0, 1, 6, 7  # words of a record's content


@SOURCES.register("RecordIO")
class RecordIO(EncodedSource):
    """Images of a ``.rec`` file.

    Three layouts are told apart. InsightFace's begins with a record 0 that has no image but labels ``[H0, H1]``: images
    are records 1..H0-1, and H0..H1-1 tell which of them belong to each identity. In im2rec's, and in a file without
    index, every record is an image. The class of an image is its label, or the first of several.

    Labels are float32 in this format, which tells neighbouring classes apart only up to 2^24 = 16,777,216: larger
    labels are refused. A header record that counts more images than that is not believed; each record then says itself
    whether it has an image.

    Args:
        path: The ``.rec`` file, or a folder with ``train.rec``.
        index: The ``.idx`` file; by default the one beside the ``.rec`` file, else the records are searched.
        relabel: Number the classes anew where labels have gaps, instead of refusing the file.

    Raises:
        DataError: If a file is missing, cut off or damaged, a label is no class number, a class has no image, or the
            ``property`` file beside it counts other classes.

    Attributes:
        records: The records, images or not.
        rows: Row in ``records`` of each image, int64, (N,).
    """

    def __init__(self, path: Path, index: Path | None = None, relabel: bool = False) -> None:
        path = Path(path)
        self.records = RecordFile(path / "train.rec" if path.is_dir() else path, index)
        if not len(self.records):
            raise DataError(f"{self.records.path}: holds no record.")
        self.rows, identities = record_rows(self.records)
        if not len(self.rows):
            raise DataError(f"{self.records.path}: holds no image.")
        labels = _labels(self.records, self.rows, identities)
        self.labels, self.num_classes = checked_labels(labels, str(self.records.path), relabel)
        _check_property(self.records.path.parent / "property", self.num_classes)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored.

        Raises:
            CorruptImage: If the record is cut off or damaged.
        """
        return self.records.record(int(self.rows[index])).image

    def location(self, index: int) -> str:
        """File, key and offset of the record."""
        return self.records.where(int(self.rows[index]))

    def name(self, index: int) -> str:
        """The record's key."""
        return f"record {self.records.keys[int(self.rows[index])]}"

    def fingerprint(self) -> str:
        """Hash of places and labels of all records."""
        return self._fingerprint

    def revision(self) -> str:
        """Hash of places and labels of all records, and of the file's stamp."""
        return f"{self._fingerprint} {stamp(self.records.path)}"

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for numbers in (self.records.offsets[self.rows], self.labels):
            digest.update(np.ascontiguousarray(numbers).data)
        return digest.hexdigest()


def record_rows(records: RecordFile) -> tuple[Integers, Integers]:
    """Rows of the images and rows of the identity records; the latter are empty where the file has none.

    Raises:
        DataError: If record 0 is a header record that cannot be right.
    """
    everything, nothing = np.arange(len(records)), np.zeros(0, np.int64)
    if records.keys[0] != 0:
        return everything, nothing
    header = records.record(0)
    # InsightFace's header record has several labels and no image; in im2rec's files record 0 is an image like others.
    if header.flag == 0 or header.image:
        return everything, nothing
    bounds = header.labels[:2]
    if len(bounds) < 2 or not np.isfinite(bounds).all() or not 1 <= bounds[0] <= bounds[1]:
        shown = ", ".join(f"{bound:g}" for bound in bounds)
        raise DataError(
            f"{records.where(0)}: the header record says [{shown}], not [end of images, end of identities]."
        )
    # float32 has rounded counts beyond 2^24.
    if bounds[1] >= EXACT:
        return everything[_has_image(records, everything)], nothing
    images, identities = int(bounds[0]), int(bounds[1])
    if identities > int(records.keys[-1]) + 1:
        raise DataError(
            f"{records.where(0)}: the header record announces records up to {identities - 1}, "
            f"but the last one is {records.keys[-1]}; the file or its index is cut off."
        )
    return records.rows(np.arange(1, images)), records.rows(np.arange(images, identities))


def _has_image(records: RecordFile, rows: Integers) -> NDArray[np.bool_]:
    """Whether there is more in each record than labels."""
    words = records.words(rows, -1)
    labels = LABEL.size + 4 * records.words(rows, FLAG).astype(np.int64)
    return np.asarray((words >> LENGTH_BITS == FIRST) | ((words & LONGEST) > labels))


def _labels(records: RecordFile, rows: Integers, identities: Integers) -> Labels:
    labels = _labels_of_identities(records, rows, identities) if len(rows) >= MANY and len(identities) else None
    return _own_labels(records, rows) if labels is None else labels


def _own_labels(records: RecordFile, rows: Integers) -> Labels:
    """The label in each image's own record: one page of the file for each.

    Raises:
        DataError: If a record is damaged, or its label is not a whole number below 2^24.
    """
    length = (records.words(rows, -1) & LONGEST).astype(np.int64)
    several = records.words(rows, FLAG) > 0
    plain = records.is_sound(rows) & (length >= LABEL.size + 4 * several)
    # The words were read as whole numbers; their bits are those of a float32.
    labels = np.where(several, records.words(rows, FIRST_LABEL), records.words(rows, FIELD)).view(np.float32)
    for odd in np.flatnonzero(~plain):  # damaged, or split inside the label: this raises or reads the joined parts
        labels[odd] = records.record(int(rows[odd])).labels[0]
    # Asked this way round, NaN is wrong too.
    wrong = np.flatnonzero(~((labels >= 0) & (labels < EXACT) & (labels == np.floor(labels))))
    if len(wrong):
        raise DataError(
            f"{records.where(int(rows[wrong[0]]))}: label {labels[wrong[0]]:.9g} is no class number; it must be whole, "
            f"from 0 and below 2^24 = {EXACT}, beyond which float32 labels run into each other."
        )
    return labels.astype(np.int64)


def _labels_of_identities(records: RecordFile, rows: Integers, identities: Integers) -> Labels | None:
    """Labels by the identity records, which lie together: one page for each person and not for each image.

    Returns:
        Label of each image, or None if the identity records do not cover the images in order, or if any of 1000
        images spread over the file has another label than the first image of its identity.
    """
    first, last = (records.words(identities, place).view(np.float32) for place in (FIRST_LABEL, SECOND_LABEL))
    starts, stops = (bounds[last > first].astype(np.int64) for bounds in (first, last))
    edges = np.concatenate((starts, [len(rows) + 1]))
    if edges[0] == 1 and (stops == edges[1:]).all():
        labels = np.repeat(_own_labels(records, rows[starts - 1]), stops - starts)
        probes = np.linspace(0, len(rows) - 1, PROBES).astype(np.int64)
        if (_own_labels(records, rows[probes]) == labels[probes]).all():
            return labels
    logging.getLogger(__name__).warning(
        "%s: the identity records contradict the images; reading the label of each image.", records.path
    )
    return None


def _check_property(path: Path, num_classes: int) -> None:
    """Compare with ``num_classes,height,width`` in the property file, if there is one."""
    if not path.is_file():
        return
    try:
        fields = read_regular(path, MAX_PROPERTY).decode("ascii", "replace").split(",")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(fields) != 3 or not all(re.fullmatch(r"\s*[0-9]{1,18}\s*", field) for field in fields):
        raise DataError(f"{path}: is not 'classes,height,width'.")
    if int(fields[0]) != num_classes:
        raise DataError(
            f"{path}: says {int(fields[0])} classes, but the records have {num_classes}; correct or remove the file."
        )
