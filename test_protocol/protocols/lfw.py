"""Labelled Faces in the Wild: 10-fold verification from ``pairs.txt`` and aligned images."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.formats.text_list import is_whole, text_lines
from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.lists.pairs import ListedPair, PairList
from facelab.test_protocol.protocols.listed_pairs import ListedPairs, person_folder


def read_lfw(path: Path) -> PairList:
    """LFW's ``pairs.txt``: a header ``folds<TAB>n``, then for each fold n same and n different pairs.

    A header ``n`` alone means one fold. A same pair is ``name i j``, a different pair ``name1 i name2 j``, separated by
    tabs or blanks; names may contain blanks. An image is ``name/name_%04d.jpg``.

    Raises:
        DataError: If the file is missing or a line is not a pair; the message names file and line.
    """
    lines = text_lines(path)
    number, header = next(lines, (1, ""))
    counts = header.split()
    if not 1 <= len(counts) <= 2 or not all(map(is_whole, counts)):
        raise DataError(f"{path}:{number}: the first line must be 'folds<TAB>pairs', got '{header}'.")
    folds, half = (int(counts[0]), int(counts[1])) if len(counts) == 2 else (1, int(counts[0]))
    named = [lfw_pair(path, number, line) for number, line in lines]
    if not named or len(named) != folds * 2 * half:
        raise DataError(
            f"{path}: the header promises {folds} folds of {half} same and {half} different pairs, "
            f"that is {folds * 2 * half}, but {len(named)} pairs follow."
        )
    fold = np.arange(len(named)) // (2 * half)
    same = np.bincount(fold, weights=[pair.same for pair in named], minlength=folds)
    if (same != half).any():
        wrong = int(np.argmax(same != half))
        raise DataError(f"{path}: fold {wrong + 1} has {int(same[wrong])} same pairs, the header promises {half}.")
    return PairList.of(named, fold)


def lfw_pair(path: Path, number: int, line: str) -> ListedPair:
    """The pair of a line ``name i j`` or ``name1 i name2 j``.

    Raises:
        DataError: If the line is neither; the message names file and line.
    """
    fields = line.split("\t") if line.count("\t") in (2, 3) else _blank_separated(line)
    fields = [field.strip() for field in fields]
    if len(fields) == 3 and is_whole(fields[1]) and is_whole(fields[2]):
        left, right, same = (fields[0], fields[1]), (fields[0], fields[2]), True
    elif len(fields) == 4 and is_whole(fields[1]) and is_whole(fields[3]):
        left, right, same = (fields[0], fields[1]), (fields[2], fields[3]), False
    else:
        raise DataError(f"{path}:{number}: expected 'name i j' or 'name1 i name2 j', got '{line}'.")
    return ListedPair(_lfw_image(*left), _lfw_image(*right), same, f"{path}:", (number, number))


def _blank_separated(line: str) -> list[str]:
    """Fields of a line whose names may contain blanks, or nothing if it can be read in two ways."""
    words = line.split()
    # The first word belongs to a name, whatever it looks like.
    numbers = [place for place, word in enumerate(words) if is_whole(word) and place]
    if numbers == [len(words) - 2, len(words) - 1]:
        return [" ".join(words[:-2]), *words[-2:]]
    if len(numbers) == 2 and numbers[1] == len(words) - 1:
        first = numbers[0]
        return [" ".join(words[:first]), words[first], " ".join(words[first + 1 : -1]), words[-1]]
    return []


def _lfw_image(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}.jpg"


@PROTOCOLS.register("LFW")
class LFW(ListedPairs):
    """LFW or a list of its form: ``pairs.txt`` with any number of folds and pairs, images ``Name/Name_0001.jpg``."""

    title = "LFW"
    read_pairs = staticmethod(read_lfw)
    person_of = staticmethod(person_folder)
    citation: ClassVar[Citation | None] = Citation(
        key="huang2007lfw",
        title="Labeled Faces in the Wild: A Database for Studying Face Recognition in Unconstrained Environments",
        authors="Huang, Gary B. and Ramesh, Manu and Berg, Tamara and Learned-Miller, Erik",
        venue="University of Massachusetts, Amherst, Technical Report 07-49",
        year=2007,
    )
