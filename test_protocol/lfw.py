"""Labelled Faces in the Wild: 10-fold verification from ``pairs.txt`` and aligned images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.images import PathImages
from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.metrics import balanced_folds
from facelab.test_protocol.pair_scores import DEFAULT_FARS, Fusion, Rules, Thresholds
from facelab.test_protocol.pairs import PairList, read_lfw
from facelab.test_protocol.verification import Verification


@PROTOCOLS.register("LFW")
class LFW(Verification):
    """Verification on LFW's pairs, or on any list of that form: any number of folds and pairs.

    Args:
        root: Aligned images, ``Name/Name_0001.jpg``, in a folder or an uncompressed ``.tar``.
        pairs: The list, ``pairs.txt``.
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How they are joined: ``sum`` as they are, or ``normalised_sum``.
        thresholds: ``exact``, or ``facexzoo``, ``insightface`` or ``magface`` to have that evaluator's number first.
        fars: False accept rates to measure the true accept rate at.
        exclude: People whose pairs are left out, for example because the model was trained on them: their names, or a
            file with one name or image path a line (a training list will do). The remaining pairs stay in the folds
            that they had, because LFW's folds share no person.
        folds: Cut the pairs anew into so many folds, each with its share of same and different pairs. By default the
            folds of the list; a list with one fold is cut into 10.
        name: Name in tables.

    Raises:
        DataError: If a file or an image is missing, a line is not a pair, or no pair is left.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="huang2007lfw",
        title="Labeled Faces in the Wild: A Database for Studying Face Recognition in Unconstrained Environments",
        authors="Huang, Gary B. and Ramesh, Manu and Berg, Tamara and Learned-Miller, Erik",
        venue="University of Massachusetts, Amherst, Technical Report 07-49",
        year=2007,
    )

    def __init__(
        self,
        root: Path,
        pairs: Path,
        flip: bool = False,
        fusion: Fusion = "sum",
        thresholds: Thresholds = "exact",
        fars: tuple[float, ...] = DEFAULT_FARS,
        exclude: Path | list[str] | None = None,
        folds: int | None = None,
        name: str = "LFW",
    ) -> None:
        rules = Rules(flip, fusion, thresholds, fars)
        listed = read_lfw(pairs)
        self.excluded = people_in(exclude)
        kept = without_people(listed, self.excluded)
        if not len(kept):
            raise DataError(f"{pairs}: no pair is left after {len(self.excluded)} people were excluded.")
        kept = with_folds(kept, folds)
        super().__init__(name, PathImages(root, kept.images), kept.pairs, kept.same, kept.fold, rules)
        self.left_out = len(listed) - len(kept)

    def options(self) -> Mapping[str, Any]:
        """Settings, and how many people and pairs were left out."""
        if not self.excluded:
            return super().options()
        return {**super().options(), "excluded_people": len(self.excluded), "excluded_pairs": self.left_out}


def people_in(exclude: Path | list[str] | None) -> frozenset[str]:
    """Names of people, from a list or from a file with a name or an image path in each line.

    Raises:
        DataError: If the file is missing or names nobody.
    """
    if exclude is None:
        return frozenset()
    if isinstance(exclude, Path):
        if not exclude.is_file():
            raise DataError(f"{exclude}: there is no such file of people to exclude.")
        lines = exclude.read_text(encoding="utf-8").splitlines()
    else:
        lines = list(exclude)
    people = frozenset(person_of(line.strip()) for line in lines if line.strip())
    if not people:
        raise DataError(f"exclude: {exclude} names nobody.")
    return people


def person_of(image: str) -> str:
    """The person of an image name ``person/file``, also if it is ``folder/person/file``; a bare name is the person."""
    parts = image.split("/")
    return parts[-2] if len(parts) > 1 else image


def without_people(pairs: PairList, people: frozenset[str]) -> PairList:
    """The pairs that show none of some people, in the folds that they had."""
    shown = np.array([person_of(image) in people for image in pairs.images], bool)
    return pairs.keep(~np.any(shown[pairs.pairs], axis=1)) if shown.any() else pairs


def with_folds(pairs: PairList, folds: int | None) -> PairList:
    """The same pairs cut into ``folds``; by default as they are, or into 10 if they are in one."""
    if folds is None and pairs.folds > 1:
        return pairs
    return replace(pairs, fold=balanced_folds(pairs.same, folds or 10))
