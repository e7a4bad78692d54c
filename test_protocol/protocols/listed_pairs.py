"""Verification on a pair list and the images that it names: what LFW and its relatives share."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from facelab.data.formats.images import PathImages
from facelab.data.formats.text_list import one_form, text_lines, with_slashes
from facelab.errors import DataError
from facelab.test_protocol.lists.pairs import FAMILY_FOLDS, PairList
from facelab.test_protocol.metrics.metrics import Integers, balanced_folds
from facelab.test_protocol.metrics.pair_scores import DEFAULT_FARS, Fusion, Reject, Rules, Thresholds
from facelab.test_protocol.protocols.verification import Verification


class ListedPairs(Verification):
    """Verification on a pair list and a root of images; a data set says how its list is read and who its images show.

    Args:
        root: Aligned images, in a folder or an archive.
        pairs: The list.
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How they are joined: ``sum`` as they are, or ``normalised_sum``.
        thresholds: ``exact``, or ``facexzoo``, ``insightface`` or ``magface`` to have that evaluator's number first.
        fars: False accept rates to measure the true accept rate at.
        reject: What error versus reject takes for quality: the scores of the images, where there are some, or the
            ``norm`` of the embeddings.
        exclude: People whose pairs are left out, for example because the model was trained on them: their names, or a
            file with one name or image path a line (a training list will do). The remaining pairs stay in the folds
            that they had, because folds share no person in most lists.
        folds: Cut the pairs anew into so many folds, each with its share of same and different pairs. By default the
            folds of the list; a list without them, or with one, is cut into 10. With ``folds: 1`` no accuracy is
            measured, because thresholds come from the other folds.
        name: Name in tables, if not that of the data set.

    Raises:
        ConfigError: If there are fewer pairs than folds.
        DataError: If a file or an image is missing (the message names file and line of the list), a line is not a pair,
            or no pair is left.

    Attributes:
        title: Name in tables.
    """

    title: ClassVar[str]

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
        name: str = "",
        reject: Reject = "quality",
    ) -> None:
        rules = Rules(flip, fusion, thresholds, fars, reject)
        listed = self.read_pairs(pairs)
        self.excluded = people_in(exclude)
        kept = without_people(listed, self.excluded, self.person_of)
        if self.excluded and len(kept) == len(listed):
            logging.getLogger(__name__).warning(
                "%s: no pair shows any of the %d people to exclude, the first is '%s'.",
                pairs,
                len(self.excluded),
                min(self.excluded),
            )
        if not len(kept):
            raise DataError(f"{pairs}: no pair is left after {len(self.excluded)} people were excluded.")
        kept = with_folds(kept, folds)
        images = PathImages(root, kept.images, kept.wanted_by)
        super().__init__(name or self.title, images, kept.pairs, kept.same, kept.fold, rules, self.number_people(kept))
        self.left_out = len(listed) - len(kept)

    @staticmethod
    @abstractmethod
    def read_pairs(path: Path) -> PairList:
        """Read the list.

        Raises:
            DataError: If it cannot be read.
        """

    @staticmethod
    @abstractmethod
    def person_of(image: str) -> str:
        """The person of an image's name; an empty text where the name does not tell."""

    @classmethod
    def number_people(cls, listed: PairList) -> Integers:
        """Number of each image's person in order of appearance, (N,); -1 where the name does not tell."""
        numbers: dict[str, int] = {"": -1}  # so that the first person becomes 0
        return np.array([numbers.setdefault(cls.person_of(image), len(numbers) - 1) for image in listed.images])

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
        lines = [line for _, line in text_lines(exclude)]
    else:
        lines = [line for line in exclude if line.strip()]
    people = frozenset(one_form(folder_or_name(with_slashes(line.strip()))) for line in lines)
    if not people:
        raise DataError(f"exclude: {exclude} names nobody.")
    return people


def folder_or_name(image: str) -> str:
    """The person of an image name ``person/file``, also if it is ``folder/person/file``; a bare name is the person."""
    return person_folder(image) or image


def person_folder(image: str) -> str:
    """The person of an image in a folder of its person."""
    parts = image.split("/")
    return parts[-2] if len(parts) > 1 else ""


def person_stem(image: str) -> str:
    """The person of an image ``Name_0001.jpg``."""
    name, _, number = Path(image).stem.rpartition("_")
    return name if number.isdecimal() else ""


def without_people(listed: PairList, people: frozenset[str], person: Callable[[str], str]) -> PairList:
    """The pairs that show none of some people, in the folds that they had."""
    shown = np.array([one_form(person(image)) in people for image in listed.images], bool)
    return listed.keep(~np.any(shown[listed.pairs], axis=1)) if shown.any() else listed


def with_folds(listed: PairList, folds: int | None) -> PairList:
    """The same pairs cut into ``folds``; by default as they are, or into 10 if they are in one.

    With one fold no accuracy is measured, because thresholds come from the other folds.
    """
    if folds is None and listed.folds > 1:
        return listed
    if folds == 1:
        return replace(listed, fold=np.zeros(len(listed), np.int64))
    return replace(listed, fold=balanced_folds(listed.same, FAMILY_FOLDS if folds is None else folds))
