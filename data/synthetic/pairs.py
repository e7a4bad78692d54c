"""Verification pairs of any labelled images, fold by fold as LFW has them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Labels
from facelab.data.synthetic.person import PAIR_STREAM, stream
from facelab.errors import ConfigError, in_range

Rows = NDArray[np.int64]


class DrawnPairs(NamedTuple):
    """Pairs of image numbers, fold by fold, in each fold first the same and then the different ones.

    Attributes:
        pairs: Two image numbers each, int64, (P, 2).
        same: Whether both show one person, bool, (P,).
        fold: Which fold each pair belongs to, int64, (P,). No person is in two folds.
    """

    pairs: Rows
    same: NDArray[np.bool_]
    fold: Rows


def draw_pairs(labels: Labels, folds: int = 10, pairs: int = 6000, seed: int = 0) -> DrawnPairs:
    """Draw pairs of which none comes twice, in either order.

    Args:
        labels: Person of each image, int64, (N,).
        folds: Number of folds, at least 1; persons are dealt to them at random.
        pairs: Number of pairs in all, half of them of one person; a multiple of ``2 * folds``.
        seed: 0 or more.

    Raises:
        ConfigError: If the numbers do not fit, or there are not enough persons or images for that many pairs.
    """
    in_range("folds", folds, 1, 1000)
    if pairs < 1 or pairs % (2 * folds):
        raise ConfigError(
            f"pairs is {pairs}, but {folds} folds of same and different pairs need a multiple of {2 * folds}."
        )
    half = pairs // (2 * folds)
    random = stream(seed, PAIR_STREAM)
    persons = random.permutation(np.unique(labels))
    drawn: list[Rows] = []
    for fold in range(folds):
        members = np.flatnonzero(np.isin(labels, persons[fold::folds]))
        drawn += [_same(labels, members, half, random), _different(labels, members, half, random)]
    same = np.tile(np.repeat([True, False], half), folds)
    return DrawnPairs(np.concatenate(drawn), same, np.repeat(np.arange(folds), 2 * half))


def _same(labels: Labels, members: Rows, pairs: int, random: np.random.Generator) -> Rows:
    ordered = members[np.argsort(labels[members], kind="stable")]
    _, counts = np.unique(labels[ordered], return_counts=True)
    starts = np.cumsum(counts) - counts
    combinations = [
        start + np.stack(np.triu_indices(count, 1), 1) for start, count in zip(starts, counts.tolist(), strict=True)
    ]
    possible = np.concatenate([np.zeros((0, 2), np.int64), *combinations])
    if len(possible) < pairs:
        raise ConfigError(
            f"a fold of {len(counts)} persons has {len(possible)} pairs of one person, but {pairs} are wanted; "
            "use more identities, more images of each, or fewer pairs."
        )
    chosen: Rows = ordered[possible[random.permutation(len(possible))[:pairs]]]
    return chosen


def _different(labels: Labels, members: Rows, pairs: int, random: np.random.Generator) -> Rows:
    _, counts = np.unique(labels[members], return_counts=True)
    possible = (len(members) ** 2 - int((counts**2).sum())) // 2
    if possible < pairs:
        raise ConfigError(
            f"a fold of {len(counts)} persons has {possible} pairs of two persons, but {pairs} are wanted; "
            "use more identities, fewer folds or fewer pairs."
        )
    found = np.zeros((0, 2), np.int64)
    while len(found) < pairs:
        # The lesser number first, so that (a, b) and (b, a) are found to be the same pair.
        tried = np.sort(members[random.integers(0, len(members), (2 * pairs, 2))], axis=1)
        found = np.concatenate([found, tried[labels[tried[:, 0]] != labels[tried[:, 1]]]])
        # In the order of drawing: the sorted order of unique() would leave out pairs of late images where it is cut.
        _, first = np.unique(found, axis=0, return_index=True)
        found = found[np.sort(first)]
    return found[:pairs]
