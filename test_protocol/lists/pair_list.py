"""Verification on own data: a file of pairs."""

import re
from pathlib import Path

import numpy as np

from facelab.data.formats.text_list import is_header, is_whole, separator_of, split_fields, text_lines
from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.lists.pairs import ListedPair, PairList
from facelab.test_protocol.metrics.metrics import Integers
from facelab.test_protocol.protocols.listed_pairs import ListedPairs, person_folder

LABELS = {
    **dict.fromkeys(("0", "0.0", "-1", "-1.0", "false", "no", "different"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes", "same"), True),
}
FORM = (
    "expected 'image1 image2 label [fold]', separated by tabs, commas or blanks, with label 0 or 1 (also "
    "false or true, no or yes, different or same, -1 or 1)"
)
COMMENT = "#"
_IMAGE = frozenset(
    f"{word}{end}"
    for word in ("image", "img", "path", "file", "filename", "name", "left", "right")
    for end in ("", "1", "2", "_1", "_2", "a", "b", "_a", "_b")
)
TITLES = (
    _IMAGE,
    _IMAGE,
    frozenset(("label", "labels", "same", "is_same", "issame", "same_person", "match", "target", "answer", "y", "gt")),
    frozenset(("fold", "split")),
)
"""What the columns of a first line that is a header may be called, in any case."""


def read_pair_list(path: Path) -> PairList:
    """A file with a line ``image1 image2 label`` or ``image1 image2 label fold`` for each pair.

    Fields are separated by tabs, else by commas, semicolons or blanks; the first line decides which, and may be a
    header. A field in double quotes may hold a separator. A label is 1 or ``true`` for one person and 0 or ``false``
    for two (`LABELS` has them all); folds are whole numbers. Without them all pairs are in one fold. Lines that begin
    with ``#`` and hold no label are comments.

    Raises:
        DataError: If the file is missing, has no pair, or a line has another form; the message names file and line.
    """
    lines = [(number, line) for number, line in text_lines(path) if not _is_comment(line)]
    if not lines:
        raise DataError(f"{path}: there are no pairs in it.")
    separator, place = separator_of(lines[0][1]), f"{path}:"
    first = split_fields(lines[0][1], separator, f"{place}{lines[0][0]}")
    columns = len(first)
    listed: list[ListedPair] = []
    folds: list[int] = []
    for number, line in lines[1:] if columns > 2 and is_header(first, TITLES) else lines:
        left, right, label, fold = _row(split_fields(line, separator, f"{place}{number}"), columns)
        if not left or not right or label is None or fold is None:
            raise DataError(f"{place}{number}: {FORM}, got '{line.strip()}'.")
        listed.append(ListedPair(left, right, label, place, (number, number)))
        folds.append(fold)
    if not listed:
        raise DataError(f"{path}: there are no pairs in it.")
    return PairList.of(listed, np.unique(np.array(folds, np.int64), return_inverse=True)[1].astype(np.int64))


def _is_comment(line: str) -> bool:
    """Whether a line begins with ``#`` and is no pair, as one of a person ``#1`` would be."""
    return line.lstrip().startswith(COMMENT) and LABELS.keys().isdisjoint(re.split(r"[\s,;]+", line.lower())[2:])


def _row(fields: list[str], columns: int) -> tuple[str, str, bool | None, int | None]:
    """Both images, label and fold; what is no such thing is empty or None."""
    if len(fields) != columns or columns not in (3, 4):
        return "", "", None, None
    fold = fields[3] if columns == 4 else "0"
    label = LABELS.get(fields[2].lower())
    return fields[0], fields[1], label, int(fold) if is_whole(fold) else None


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
