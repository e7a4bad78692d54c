"""Pairs of images as lists give them: images, answers, folds, and the line of the list that each pair stands in.

The readers lie beside their protocols (``lfw``, ``rfw``, ``cplfw``, ``calfw``, ``agedb``, ``cfp``,
``pair_list``). Reading a list touches no image.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facelab.data.formats.text_list import with_slashes
from facelab.errors import DataError
from facelab.test_protocol.metrics.metrics import Booleans, Integers

FAMILY_FOLDS = 10


class ListedPair(NamedTuple):
    """One pair as a list gives it.

    Attributes:
        left: Name of the first image below the image root.
        right: Name of the second image.
        same: Whether both show one person.
        place: How the place of a line begins in messages, for example ``pairs.txt:``; one string for a whole file.
        lines: Numbers of the lines that name the first and the second image.
    """

    left: str
    right: str
    same: bool
    place: str
    lines: tuple[int, int]


@dataclass(frozen=True)
class PairList:
    """Pairs of images with their answers and folds.

    Attributes:
        images: Each distinct image once, in order of first appearance: names below the image root.
        pairs: Rows of ``images``, int64, (P, 2).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, from 0, int64, (P,).
        places: The files that the pairs stand in, as messages begin.
        place: Row of ``places``, int64, (P,).
        lines: Lines that name the first and the second image of each pair, int64, (P, 2).
    """

    images: tuple[str, ...]
    pairs: Integers
    same: Booleans
    fold: Integers
    places: tuple[str, ...]
    place: Integers
    lines: Integers

    @classmethod
    def of(cls, listed: Iterable[ListedPair], fold: NDArray[np.int64]) -> "PairList":
        """Number the images of pairs, which belong to folds (P,)."""
        images: dict[str, int] = {}
        places: dict[str, int] = {}
        table = [
            (
                images.setdefault(with_slashes(pair.left), len(images)),
                images.setdefault(with_slashes(pair.right), len(images)),
                pair.same,
                places.setdefault(pair.place, len(places)),
                *pair.lines,
            )
            for pair in listed
        ]
        array = np.array(table, np.int64).reshape(-1, 6)
        return cls(tuple(images), array[:, :2], array[:, 2] != 0, fold, tuple(places), array[:, 3], array[:, 4:])

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.same)

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(np.unique(self.fold))

    @property
    def repeated(self) -> int:
        """How many pairs stand in the list already, in either order."""
        low, high = self.pairs.min(axis=1), self.pairs.max(axis=1)
        # One number for each pair, whichever image comes first.
        return len(self) - len(np.unique(low * len(self.images) + high))

    def named(self) -> Iterator[tuple[str, str, bool]]:
        """Both image names and the answer of each pair."""
        for (left, right), same in zip(self.pairs, self.same, strict=True):
            yield self.images[left], self.images[right], bool(same)

    def wanted_by(self, image: int) -> str:
        """File and line that name an image first."""
        pair, side = np.argwhere(self.pairs == image)[0]
        return f"{self.places[self.place[pair]]}{self.lines[pair, side]}"

    def keep(self, rows: Booleans) -> "PairList":
        """Some of the pairs, in their order and in the folds they had; images that no pair needs are dropped."""
        needed, first, number = np.unique(self.pairs[rows], return_index=True, return_inverse=True)
        # unique() sorts by the old numbers; the images keep the order in which the pairs name them.
        order = np.argsort(first)
        new_number = np.empty(len(order), np.int64)
        new_number[order] = np.arange(len(order))
        return replace(
            self,
            images=tuple(self.images[image] for image in needed[order]),
            pairs=new_number[number].reshape(-1, 2),
            same=self.same[rows],
            fold=np.unique(self.fold[rows], return_inverse=True)[1].astype(np.int64),
            place=self.place[rows],
            lines=self.lines[rows],
        )


def family_folds(path: Path, count: int) -> Integers:
    """Ten folds of consecutive pairs, (``count``,).

    Raises:
        DataError: If there are fewer than ten pairs.
    """
    if count < FAMILY_FOLDS:
        raise DataError(f"{path}: {count} pairs are too few for {FAMILY_FOLDS} folds.")
    return np.arange(count) * FAMILY_FOLDS // count
