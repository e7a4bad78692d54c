"""AgeDB-30: pairs of photographs that are 30 years apart, from a MATLAB file."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.lists.matlab import Struct, cell_text, read_variable
from facelab.test_protocol.lists.pairs import ListedPair, PairList
from facelab.test_protocol.protocols.listed_pairs import ListedPairs


def read_agedb(path: Path) -> PairList:
    """AgeDB-30's ``04_FINAL_protocol_30_years.mat``: a cell of splits, each with 2 x n image stems and n labels.

    Labels are 1 for same pairs and -1 for others. Fields are taken by position, because their names differ between
    copies of the file. ``.jpg`` is added to a stem.

    Raises:
        DataError: If the file is missing, is not a MATLAB file, or does not have that form.
    """
    named: list[ListedPair] = []
    fold: list[int] = []
    for number, split in enumerate(_agedb_splits(path)):
        pairs = _agedb_split(split, f"{path}: split {number + 1}")
        named += pairs
        fold += [number] * len(pairs)
    return PairList.of(named, np.array(fold, np.int64))


def _agedb_splits(path: Path) -> list[object]:
    splits = read_variable(path, "splits")
    if not isinstance(splits, np.ndarray) or splits.dtype != object or not splits.size:
        raise DataError(f"{path}: has no variable 'splits' that is a cell of splits.")
    return list(splits.ravel())


def _agedb_split(split: object, where: str) -> list[ListedPair]:
    if not isinstance(split, Struct) or len(split.rows) != 1 or len(split.fields) < 2:
        raise DataError(f"{where} is not a struct of pairs and labels.")
    pairs, labels = split.rows[0][:2]
    if not all(isinstance(part, np.ndarray) for part in (pairs, labels)) or labels.dtype == object:
        raise DataError(f"{where} is not a cell of images and an array of labels.")
    labels = labels.ravel()
    if pairs.dtype != object or pairs.ndim != 2 or pairs.shape != (2, len(labels)):
        raise DataError(f"{where} must have 2 x n images and n labels, got {pairs.shape} and {len(labels)}.")
    if not np.isin(labels, (1, -1, 0)).all():
        raise DataError(f"{where} has labels other than 1 and -1.")
    place = f"{where}, pair "
    return [
        ListedPair(
            f"{cell_text(left, where)}.jpg", f"{cell_text(right, where)}.jpg", bool(label == 1), place, (row, row)
        )
        for row, (left, right, label) in enumerate(zip(pairs[0], pairs[1], labels, strict=True), 1)
    ]


def agedb_person(image: str) -> str:
    """The person of an image ``number_Name_age_gender.jpg``; an empty text if it has another form."""
    found = re.fullmatch(r"\d+_(.+)_\d+_[fm]\.jpg", image.rpartition("/")[2])
    return found[1] if found else ""


@PROTOCOLS.register("AgeDB30")
class AgeDB30(ListedPairs):
    """AgeDB-30: ``04_FINAL_protocol_30_years.mat`` and images ``number_Name_age_gender.jpg``."""

    title = "AgeDB-30"
    read_pairs = staticmethod(read_agedb)
    person_of = staticmethod(agedb_person)
    citation: ClassVar[Citation | None] = Citation(
        key="moschoglou2017agedb",
        title="AgeDB: The First Manually Collected, In-the-Wild Age Database",
        authors="Moschoglou, Stylianos and Papaioannou, Athanasios and Sagonas, Christos and Deng, Jiankang and "
        "Kotsia, Irene and Zafeiriou, Stefanos",
        venue="IEEE Conference on Computer Vision and Pattern Recognition Workshops",
        year=2017,
    )
