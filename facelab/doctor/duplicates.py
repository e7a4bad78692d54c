"""Pictures that are there twice: groups of near ones, and which of them stay."""

import numpy as np
from numpy.typing import NDArray

from facelab.doctor.findings import Finding, Rows
from facelab.doctor.groups import components
from facelab.doctor.image_hash import BITS, Hashes, distance

Floats = NDArray[np.float32]


def find_duplicates(
    hashes: Hashes,
    labels: Rows,
    pairs: tuple[Rows, Rows],
    worth: Floats,
    support: Floats | None = None,
    least: float = 0.0,
    margin: float = 0.0,
) -> list[Finding]:
    """Duplicates within people and between them.

    Args:
        hashes: Of all images, (N, 4).
        labels: (N,).
        pairs: Rows of pairs that are near, by their hashes or by a model, both (M,).
        worth: Of the copies of one person the one with the highest stays, (N,).
        support: How like the image is to the others of its label, (N,), NaN where unknown; None without a model.
        least: How like its label the copy must be that stays.
        margin: By how much more than all others.
    """
    root = components(len(labels), *pairs)
    involved = np.unique(np.concatenate(pairs))
    # The best copy of each person in each group comes first.
    order = involved[np.lexsort((-worth[involved], labels[involved], root[involved]))]
    first = np.ones(len(order), bool)
    first[1:] = (root[order[1:]] != root[order[:-1]]) | (labels[order[1:]] != labels[order[:-1]])
    best = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))] if len(order) else order
    within = Finding.of(
        "duplicate", order[~first], best[~first], likeness(hashes[order[~first]], hashes[best[~first]]), ascending=False
    )
    return [within, _between(hashes, labels, root, order[first], support, least, margin)]


def likeness(left: Hashes, right: Hashes) -> NDArray[np.float64]:
    """1 for equal hashes, 0 for those of any two pictures."""
    return 1.0 - distance(left, right) / (BITS / 2)


def _between(
    hashes: Hashes, labels: Rows, root: Rows, people: Rows, support: Floats | None, least: float, margin: float
) -> Finding:
    """Of images that stand for their people, those in one group."""
    liked = np.full(len(labels), -np.inf, np.float32) if support is None else np.nan_to_num(support, nan=-np.inf)
    order = people[np.lexsort((-liked[people], root[people]))]
    leads = np.ones(len(order), bool)
    leads[1:] = root[order[1:]] != root[order[:-1]]
    start = np.maximum.accumulate(np.where(leads, np.arange(len(order)), 0)) if len(order) else order
    lead, others = order[start][~leads], order[~leads]
    second = np.flatnonzero(~leads & np.roll(leads, 1))  # the strongest rival of each lead
    with np.errstate(invalid="ignore"):
        best = liked[order[start[second]]]
        clear = (best > least) & (best - liked[order[second]] > margin)
    unclear = order[start[second[~clear]]]
    score = likeness(hashes[others], hashes[lead])
    return Finding.of("duplicate elsewhere", others, lead, score, np.union1d(others, unclear), ascending=False)
