"""CFP: celebrities in frontal and in profile view, two protocols: frontal to profile (FP), frontal to frontal (FF)."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.formats.text_list import text_lines
from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.lists.pairs import ListedPair, PairList
from facelab.test_protocol.protocols.listed_pairs import ListedPairs


def read_cfp(protocol: Path, kind: str) -> PairList:
    """CFP's ``Protocol`` folder: numbered image lists, and per fold ``same.txt`` and ``diff.txt`` of number pairs.

    Args:
        protocol: The folder with ``Pair_list_F.txt``, ``Pair_list_P.txt`` and ``Split``.
        kind: ``FF`` (frontal to frontal) or ``FP`` (frontal to profile).

    Returns:
        Pairs in folds; image names are relative to the folder above ``protocol``.

    Raises:
        DataError: If a file is missing or a line is wrong; the message names file and line.
    """
    if kind not in ("FF", "FP"):
        raise DataError(f"CFP has the kinds FF and FP, not '{kind}'.")
    lists = {letter: _cfp_images(protocol / f"Pair_list_{letter}.txt") for letter in set(kind)}
    named: list[ListedPair] = []
    fold: list[int] = []
    folders = sorted(folder for folder in (protocol / "Split" / kind).glob("*") if folder.is_dir())
    if not folders:
        raise DataError(f"{protocol / 'Split' / kind}: there are no folds.")
    for number, folder in enumerate(folders):
        for file, same in (("same.txt", True), ("diff.txt", False)):
            named += _cfp_pairs(folder / file, same, lists[kind[0]], lists[kind[1]])
        fold += [number] * (len(named) - len(fold))
    return PairList.of(named, np.array(fold, np.int64))


def _cfp_images(path: Path) -> dict[str, str]:
    images = {}
    for number, line in text_lines(path):
        key, _, image = line.strip().partition(" ")
        if not key.isdecimal() or not image.strip():
            raise DataError(f"{path}:{number}: expected 'number path', got '{line}'.")
        # Paths in these lists start in ``Protocol``.
        images[key] = image.strip().removeprefix("../")
    return images


def _cfp_pairs(path: Path, same: bool, left: dict[str, str], right: dict[str, str]) -> Iterator[ListedPair]:
    place = f"{path}:"
    for number, line in text_lines(path):
        first, _, second = (part.strip() for part in line.partition(","))
        if first not in left or second not in right:
            raise DataError(f"{path}:{number}: '{line}' does not name two images of the lists.")
        yield ListedPair(left[first], right[second], same, place, (number, number))


def cfp_person(image: str) -> str:
    """The person of an image ``Data/Images/001/frontal/01.jpg``."""
    parts = image.split("/")
    return parts[-3] if len(parts) > 2 else ""


class _CFP(ListedPairs):
    """What both protocols share."""

    person_of = staticmethod(cfp_person)
    citation: ClassVar[Citation | None] = Citation(
        key="sengupta2016cfp",
        title="Frontal to Profile Face Verification in the Wild",
        authors="Sengupta, Soumyadip and Chen, Jun-Cheng and Castillo, Carlos and Patel, Vishal M. and "
        "Chellappa, Rama and Jacobs, David W.",
        venue="IEEE Winter Conference on Applications of Computer Vision",
        year=2016,
    )


@PROTOCOLS.register("CFP-FP")
class CFPFrontalProfile(_CFP):
    """CFP, frontal to profile: ``pairs`` is the folder ``Protocol``, ``root`` has ``Data/Images/001/frontal``."""

    title = "CFP-FP"

    @staticmethod
    def read_pairs(path: Path) -> PairList:
        """Read the folder ``Protocol``."""
        return read_cfp(path, "FP")


@PROTOCOLS.register("CFP-FF")
class CFPFrontalFrontal(_CFP):
    """CFP, frontal to frontal: ``pairs`` is the folder ``Protocol``, ``root`` has ``Data/Images/001/frontal``."""

    title = "CFP-FF"

    @staticmethod
    def read_pairs(path: Path) -> PairList:
        """Read the folder ``Protocol``."""
        return read_cfp(path, "FF")
