"""CPLFW: LFW's people in other poses, from lists with two lines for each pair."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.formats.text_list import text_lines
from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.lists.pairs import FAMILY_FOLDS, ListedPair, PairList, family_folds
from facelab.test_protocol.protocols.listed_pairs import ListedPairs, person_stem


def read_cplfw(path: Path) -> PairList:
    """CPLFW's ``pairs_CPLFW.txt``: two lines ``image label`` for each pair, of which the first label counts.

    All same pairs come first in the file. Fold k takes the k-th tenth of them, then the k-th tenth of the others.

    Raises:
        DataError: If the file is missing, or a line has no label; the message names file and line.
    """
    rows = [_image_and_label(path, number, line) for number, line in text_lines(path)]
    if len(rows) % 2:
        raise DataError(f"{path}: a pair takes two lines, but there is an odd number of them ({len(rows)}).")
    place = f"{path}:"
    named = [
        ListedPair(left, right, label != 0, place, (first, second))
        for (left, label, first), (right, _, second) in zip(rows[::2], rows[1::2], strict=True)
    ]
    family_folds(path, len(named))
    # Tenths of the file as it is would hold same pairs alone, or different ones.
    by_class = [[pair for pair in named if pair.same], [pair for pair in named if not pair.same]]
    ordered: list[ListedPair] = []
    fold: list[int] = []
    for number in range(FAMILY_FOLDS):
        for pairs in by_class:
            share = pairs[_cut(pairs, number) : _cut(pairs, number + 1)]
            ordered += share
            fold += [number] * len(share)
    return PairList.of(ordered, np.array(fold, np.int64))


def _cut(pairs: list[ListedPair], fold: int) -> int:
    return len(pairs) * fold // FAMILY_FOLDS


def _image_and_label(path: Path, number: int, line: str) -> tuple[str, int, int]:
    fields = line.strip().rsplit(None, 1)
    if len(fields) != 2 or not re.fullmatch(r"-?\d{1,18}", fields[1]):
        raise DataError(f"{path}:{number}: expected 'image label', got '{line}'.")
    return fields[0], int(fields[1]), number


@PROTOCOLS.register("CPLFW")
class CPLFW(ListedPairs):
    """Cross-Pose LFW: ``pairs_CPLFW.txt`` and images ``Name_1.jpg``."""

    title = "CPLFW"
    read_pairs = staticmethod(read_cplfw)
    person_of = staticmethod(person_stem)
    citation: ClassVar[Citation | None] = Citation(
        key="zheng2018cplfw",
        title="Cross-Pose LFW: A Database for Studying Cross-Pose Face Recognition in Unconstrained Environments",
        authors="Zheng, Tianyue and Deng, Weihong",
        venue="Beijing University of Posts and Telecommunications, Technical Report 18-01",
        year=2018,
    )
