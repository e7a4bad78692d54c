"""Labels against embeddings: how alike images of one label and of two are, and what does not fit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facelab.doctor.findings import Finding, Rows
from facelab.doctor.groups import components
from facelab.doctor.neighbours import Neighbours

Floats = NDArray[np.float32]
Booleans = NDArray[np.bool_]

CHUNK = 4096
RANDOM_PAIRS = 200_000
TOLD_APART = 3.0  # deviations between strangers and one person, below which a model says nothing of labels
ONE_PERSON = 0.5  # parts of the way from strangers to one person: above it two images, or an image and a label, are one
UNLIKE_GROUP = 0.35  # below it two groups of images are two people
AMONG_ALL = 4.0  # deviations, where the most alike of all pairs are looked for
ONE_LABEL = 0.85  # above it two labels are one person
OUTLIER = 0.25  # below it an image does not belong to its label


@dataclass(frozen=True)
class Scale:
    """What cosines mean for this model on these images.

    Attributes:
        strangers: Median cosine of two random images with different labels.
        spread: Standard deviation of those.
        own: Median cosine of an image to the mean of the others of its label.
    """

    strangers: float
    spread: float
    own: float

    @property
    def gap(self) -> float:
        """From strangers to one person."""
        return self.own - self.strangers

    @property
    def is_telling(self) -> bool:
        """Whether the model tells people apart at all."""
        return self.gap > TOLD_APART * self.spread

    def at(self, part: float) -> float:
        """The cosine at a part of the way, 0..1, from strangers to one person."""
        return self.strangers + part * self.gap

    def surely(self, part: float, deviations: float) -> float:
        """The same, but at least so many deviations above strangers, whom a weak model finds alike by chance."""
        return max(self.at(part), self.strangers + deviations * self.spread)

    @property
    def one_person(self) -> float:
        """From here on two images, or an image and a label, that were not searched for among all are one person."""
        return self.surely(ONE_PERSON, 3.0)


class Identities:
    """Embeddings with labels.

    Args:
        vectors: Of unit length, float32, (N, D).
        labels: int64, (N,), from 0.
        neighbours: Of the vectors.
        counted: Which images the means of labels are made of, (N,); all by default.
    """

    def __init__(self, vectors: Floats, labels: Rows, neighbours: Neighbours, counted: Booleans | None = None) -> None:
        self.vectors, self.labels, self.neighbours = vectors, labels, neighbours
        self.counted = np.ones(len(labels), bool) if counted is None else counted
        classes = int(labels.max()) + 1
        self.counts = np.bincount(labels[self.counted], minlength=classes)
        self.sums = group_sums(vectors, labels, classes, self.counted)

    def without(self, rows: Booleans) -> "Identities":
        """The same, with fewer images in the means."""
        return Identities(self.vectors, self.labels, self.neighbours, self.counted & ~rows)

    def others_cosine(self) -> Floats:
        """Cosine of each image to the mean of the others of its label, (N,); NaN where there are none."""
        result = np.empty(len(self.labels), np.float32)
        for part in _chunks(len(self.labels)):
            vectors, labels = self.vectors[part], self.labels[part]
            others = self.sums[labels] - vectors * self.counted[part, None]
            left = self.counts[labels] - self.counted[part]
            length = np.linalg.norm(others, axis=1)
            result[part] = np.where(left > 0, (others * vectors).sum(axis=1) / np.maximum(length, 1e-9), np.nan)
        return result

    def means(self) -> Floats:
        """Mean of each label, of unit length, (C, D); zeros without images."""
        return np.asarray(self.sums / np.maximum(np.linalg.norm(self.sums, axis=1, keepdims=True), 1e-9))

    def nearest_of_labels(self, labels: Rows, targets: Floats) -> Rows:
        """The counted image of each of some labels that is nearest to a vector, (M,) and (M, D) -> (M,)."""
        found = np.zeros(len(labels), np.int64)
        members = np.flatnonzero(self.counted)
        order = members[np.argsort(self.labels[members], kind="stable")]
        starts = np.searchsorted(self.labels[order], labels)
        for place, (label, start) in enumerate(zip(labels.tolist(), starts.tolist(), strict=True)):
            rows = order[start : start + self.counts[label]]
            found[place] = rows[np.argmax(self.vectors[rows] @ targets[place])]
        return found


def measure_scale(identities: Identities, seed: int = 0) -> Scale | None:
    """The scale of a model on a set; None where no label has two images, or there is one label alone."""
    own = identities.others_cosine()
    labels, count = identities.labels, len(identities.labels)
    left, right = np.random.default_rng(seed).integers(count, size=(2, RANDOM_PAIRS))
    apart = labels[left] != labels[right]
    if not apart.any() or not np.isfinite(own).any():
        return None
    cosine = np.concatenate(
        [
            (identities.vectors[one] * identities.vectors[other]).sum(axis=1)
            for one, other in zip(_parts(left[apart]), _parts(right[apart]), strict=True)
        ]
    )
    return Scale(float(np.median(cosine)), float(cosine.std()), float(np.nanmedian(own)))


def find_label_errors(identities: Identities, scale: Scale) -> list[Finding]:
    """Wrong labels, several people under one, one under two, and outliers: each without what was found before."""
    wrong = wrong_labels(identities, scale)
    rest = identities.without(_mask(wrong.rows, identities))
    several = several_people(rest, scale)
    rest = rest.without(_mask(several.rows, identities))
    outlier, pairs = outliers(rest, scale)
    rest = rest.without(_mask(outlier.rows, identities))
    return [wrong, several, two_labels(rest, scale), outlier, pairs]


def wrong_labels(identities: Identities, scale: Scale) -> Finding:
    """Images that are unlike the others of their label and like those of another, which has a neighbour of theirs.

    The other label must be nearer by half of the way from strangers to one person, and as near as one person is.
    """
    own = identities.others_cosine()
    rows = np.flatnonzero(identities.counted & (own < scale.one_person))
    best, beside = _best_other_label(identities, rows)
    nearer = best - own[rows]
    found = (nearer > ONE_PERSON * scale.gap) & (best > scale.one_person)
    return Finding.of("wrong label", rows[found], beside[found], nearer[found], ascending=False)


def _best_other_label(identities: Identities, rows: Rows) -> tuple[Floats, Rows]:
    """For some images the cosine to the nearest other label, (M,), of those that neighbours have, and the neighbour."""
    best, beside = np.full(len(rows), -1.0, np.float32), np.zeros(len(rows), np.int64)
    lengths = np.maximum(np.linalg.norm(identities.sums, axis=1), 1e-9)
    for part in _chunks(len(rows)):
        near = identities.neighbours.rows[rows[part]]
        labels = identities.labels[near]
        vectors = identities.vectors[rows[part]]
        for place in range(near.shape[1]):  # of ten neighbours, one after the other: all at once take ten times D
            label = labels[:, place]
            cosine = (identities.sums[label] * vectors).sum(axis=1) / lengths[label]
            cosine[label == identities.labels[rows[part]]] = -1.0
            better = cosine > best[part]
            best[part][better] = cosine[better]
            beside[part][better] = near[better, place]
    return best, beside


def several_people(identities: Identities, scale: Scale) -> Finding:
    """Labels whose images form groups that are unlike each other.

    A group is what is linked by neighbours of one label that are as near as one person is. Groups of one image are no
    people: `outliers` has them.
    """
    labels, near = identities.labels, identities.neighbours
    left = np.repeat(np.arange(len(labels)), near.rows.shape[1])
    right = near.rows.ravel()
    linked = (labels[left] == labels[right]) & (near.cosine.ravel() > scale.one_person)
    linked &= identities.counted[left] & identities.counted[right]
    root = components(len(labels), left[linked], right[linked])
    members = np.flatnonzero(identities.counted)
    groups, group = np.unique(root[members], return_inverse=True)
    sizes = np.bincount(group)
    main = _largest(labels[groups], sizes)
    small = (sizes > 1) & (main != np.arange(len(groups))) & (sizes[main] > 1)
    candidates = np.flatnonzero(small)
    wanted = np.union1d(candidates, main[candidates])  # sums of other groups would take memory for nothing
    place = np.full(len(groups), -1)
    place[wanted] = np.arange(len(wanted))
    inside = place[group] >= 0
    sums = np.zeros((len(wanted), identities.vectors.shape[1]), np.float32)
    for part in _parts(np.flatnonzero(inside)):
        np.add.at(sums, place[group[part]], identities.vectors[members[part]])
    means = sums / np.maximum(sizes[wanted, None], 1)
    cosine = (means[place[candidates]] * means[place[main[candidates]]]).sum(axis=1)
    unlike = cosine < scale.at(UNLIKE_GROUP)
    score = np.full(len(groups), np.nan, np.float32)
    score[candidates[unlike]] = cosine[unlike]
    chosen = np.isfinite(score[group])
    return Finding.of("several people", members[chosen], groups[main[group[chosen]]], score[group[chosen]])


def _largest(owner: Rows, size: Rows) -> Rows:
    """For each group the largest one of its owner, (G,); of equals, the first."""
    order = np.lexsort((-size, owner))
    first = order[np.unique(owner[order], return_index=True)[1]]
    by_owner = np.zeros(int(owner.max()) + 1 if len(owner) else 0, np.int64)
    by_owner[owner[first]] = first
    return by_owner[owner]


def outliers(identities: Identities, scale: Scale) -> tuple[Finding, Finding]:
    """Images that are unlike the others of their label; and labels of two images of which that is said of both."""
    own = identities.others_cosine()
    rows = np.flatnonzero(identities.counted & (own < scale.at(OUTLIER)))
    two = identities.counts[identities.labels[rows]] == 2
    beside = _another_of_label(identities, rows)
    pairs = two & (rows < beside)  # each once
    return (
        Finding.of("outlier", rows[~two], beside[~two], own[rows[~two]]),
        Finding.of("unlike pair", rows[pairs], beside[pairs], own[rows[pairs]], np.union1d(rows[pairs], beside[pairs])),
    )


def _another_of_label(identities: Identities, rows: Rows) -> Rows:
    """An image of the same label for each of some rows: the first that counts, or the second."""
    members = np.flatnonzero(identities.counted)
    order = members[np.argsort(identities.labels[members], kind="stable")]
    first = np.searchsorted(identities.labels[order], identities.labels[rows])
    at_first = order[np.minimum(first, len(order) - 1)]
    return np.where(at_first == rows, order[np.minimum(first + 1, len(order) - 1)], at_first)


def two_labels(identities: Identities, scale: Scale) -> Finding:
    """Labels whose means are nearly one, of those that neighbours have; of linked ones the largest stays."""
    labels, near = identities.labels, identities.neighbours
    left = np.repeat(np.arange(len(labels)), near.rows.shape[1])
    right = near.rows.ravel()
    met = (labels[left] != labels[right]) & (near.cosine.ravel() > scale.one_person)
    met &= identities.counted[left] & identities.counted[right]
    pairs = np.unique(np.sort(labels[np.stack([left[met], right[met]])], axis=0), axis=1)
    means = identities.means()
    cosine = (means[pairs[0]] * means[pairs[1]]).sum(axis=1)
    one = cosine > scale.surely(ONE_LABEL, AMONG_ALL)
    linked = components(len(identities.counts), pairs[0, one], pairs[1, one])
    main = _largest(linked, identities.counts)
    smaller = np.flatnonzero(main != np.arange(len(main)))
    beside = main[smaller]
    shown = [identities.nearest_of_labels(label, means[of]) for label, of in ((smaller, beside), (beside, smaller))]
    score = (means[smaller] * means[beside]).sum(axis=1)
    leaving = np.flatnonzero(np.isin(labels, smaller))
    return Finding.of("two labels", shown[0], shown[1], score, leaving, ascending=False)


def group_sums(vectors: Floats, group: Rows, groups: int, counted: Booleans) -> Floats:
    """Sum of the vectors of each group, (G, D)."""
    sums = np.zeros((groups, vectors.shape[1]), np.float32)
    for part in _parts(np.flatnonzero(counted)):
        np.add.at(sums, group[part], vectors[part])
    return sums


def _mask(rows: Rows, identities: Identities) -> Booleans:
    mask = np.zeros(len(identities.labels), bool)
    mask[rows] = True
    return mask


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def _parts(rows: Rows) -> list[Rows]:
    return [rows[part] for part in _chunks(len(rows))]
