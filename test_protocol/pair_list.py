"""Verification on own data: a file of pairs."""

from pathlib import Path

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.listed_pairs import ListedPairs, person_folder
from facelab.test_protocol.metrics import Integers
from facelab.test_protocol.pairs import ListedPair, PairList, text_lines

SEPARATORS = ("\t", ",", None)  # None: any blanks
LABELS = {"0": False, "1": True}
FORM = "expected 'image1 image2 label [fold]', separated by tabs, commas or blanks, with label 0 or 1"


def read_pair_list(path: Path) -> PairList:
    """A file with a line ``image1 image2 label`` or ``image1 image2 label fold`` for each pair.

    Fields are separated by tabs, else by commas, else by blanks; the first line decides which. A label is 1 for one
    person and 0 for two; folds are whole numbers. Without them all pairs are in one fold.

    Raises:
        DataError: If the file is missing, has no pair, or a line has another form; the message names file and line.
    """
    lines = list(text_lines(path))
    if not lines:
        raise DataError(f"{path}: there are no pairs in it.")
    separator = next(mark for mark in SEPARATORS if mark is None or mark in lines[0][1])
    columns = len(lines[0][1].strip().split(separator))
    place = f"{path}:"
    listed: list[ListedPair] = []
    folds: list[int] = []
    for number, line in lines:
        fields = [field.strip() for field in line.strip().split(separator)]
        if len(fields) != columns or columns not in (3, 4) or fields[2] not in LABELS or not fields[-1].isdecimal():
            raise DataError(f"{place}{number}: {FORM}, got '{line.strip()}'.")
        listed.append(ListedPair(fields[0], fields[1], LABELS[fields[2]], place, (number, number)))
        folds.append(int(fields[3]) if columns == 4 else 0)
    return PairList.of(listed, np.unique(np.array(folds, np.int64), return_inverse=True)[1].astype(np.int64))


@PROTOCOLS.register("PairList")
class OwnPairs(ListedPairs):
    """Verification on any pairs: a file of lines ``image1 image2 label [fold]``, label 1 for one person, 0 for two.

    The people of the images are those of their folders, if that agrees with every answer of the list.
    """

    title = "PairList"
    read_pairs = staticmethod(read_pair_list)
    person_of = staticmethod(person_folder)

    @classmethod
    def number_people(cls, listed: PairList) -> Integers:
        """Number of each image's person, (N,); -1 for all if folders and answers contradict each other."""
        numbers = super().number_people(listed)
        left, right = numbers[listed.pairs].T
        agree = (left >= 0) & (right >= 0) & ((left == right) == listed.same)
        return numbers if agree.all() else np.full(len(numbers), -1)
