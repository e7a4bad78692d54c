"""Verification metrics by their clean definitions, on scores and labels alone. Pure NumPy, no loops over pairs.

A pair is accepted where ``score >= threshold``; higher scores mean more alike. What published evaluators compute
instead lives in `facelab.test_protocol.metrics.reference_rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facelab.errors import ConfigError, DataError, in_range

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Roc:
    """Every operating point of a set of scored pairs, from accepting nothing to accepting all.

    Attributes:
        threshold: (T,), falling; the first is +inf, the others are the distinct scores.
        far: False accept rate at each threshold, (T,), rising.
        tar: True accept rate at each threshold, (T,), rising.
        positives: Number of same pairs.
        negatives: Number of different pairs.
    """

    threshold: Floats
    far: Floats
    tar: Floats
    positives: int
    negatives: int


@dataclass(frozen=True)
class OperatingPoint:
    """The largest true accept rate whose false accept rate does not exceed a target.

    Attributes:
        target: The false accept rate asked for.
        tar: True accept rate there.
        far: The false accept rate that is really reached, at most ``target``.
        threshold: Accept where the score is at least this; +inf if nothing may be accepted.
        measurable: Whether there are at least ``1 / target`` different pairs. With fewer, the answer is that of a
            false accept rate of zero and says nothing of ``target``.
    """

    target: float
    tar: float
    far: float
    threshold: float
    measurable: bool


@dataclass(frozen=True)
class FoldResult:
    """Accuracy of each fold, at the threshold that the other folds chose.

    Attributes:
        accuracy: (K,), fractions.
        threshold: (K,), on whatever scale the rule works (cosine, squared distance …).
    """

    accuracy: Floats
    threshold: Floats

    @property
    def mean(self) -> float:
        """Mean accuracy of the folds."""
        return float(self.accuracy.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean: deviation with K - 1, over the root of K."""
        return float(self.accuracy.std(ddof=1) / np.sqrt(len(self.accuracy)))

    @property
    def deviation(self) -> float:
        """Plain deviation with K, as InsightFace prints it."""
        return float(self.accuracy.std())


def roc(scores: ArrayLike, same: ArrayLike) -> Roc:
    """The curve of true against false accepts.

    Args:
        scores: Similarity of each pair, (P,).
        same: Whether each pair shows one person, (P,).

    Raises:
        DataError: If the shapes differ, a score is NaN, or one of the two classes is missing.
    """
    values, labels = checked(scores, same)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        missing = "same" if not positives else "different"
        raise DataError(f"a ROC curve needs both same and different pairs; of {len(labels)} pairs none is {missing}.")
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = _ends_of_ties(ordered)
    accepted_same = np.cumsum(labels[order])[ends]
    accepted_different = ends + 1 - accepted_same
    return Roc(
        threshold=np.concatenate(([np.inf], ordered[ends])),
        far=np.concatenate(([0.0], accepted_different / negatives)),
        tar=np.concatenate(([0.0], accepted_same / positives)),
        positives=positives,
        negatives=negatives,
    )


def tar_at_far(curve: Roc, targets: Sequence[float]) -> list[OperatingPoint]:
    """Operating points at some false accept rates, pooled over all pairs.

    Raises:
        ConfigError: If a target is not in (0, 1].
    """
    return [_operating_point(curve, in_range("a target FAR", target, 0.0, 1.0, low_open=True)) for target in targets]


def _operating_point(curve: Roc, target: float) -> OperatingPoint:
    # The published convention for a TAR at a FAR: the last real operating point whose FAR is at most the target. A line
    # between two points would be a classifier that nobody has.
    last = int(np.searchsorted(curve.far, target, side="right")) - 1
    return OperatingPoint(
        target=target,
        tar=float(curve.tar[last]),
        far=float(curve.far[last]),
        threshold=float(curve.threshold[last]),
        measurable=curve.negatives * target >= 1.0 - 1e-9,
    )


def auc(curve: Roc) -> float:
    """Chance that a same pair scores above a different pair, ties counting half (Mann-Whitney)."""
    # A tie of both kinds is one slanted step of the curve: the trapezium under it counts each such pair by half.
    return float(np.sum(np.diff(curve.far) * (curve.tar[1:] + curve.tar[:-1])) / 2.0)


def eer(curve: Roc) -> float:
    """Rate at which false accepts and false rejects are equal, linear between the two neighbouring points."""
    gap = 1.0 - curve.tar - curve.far  # falls from 1 to -1, so there is always a point to the left of the crossing
    right = int(np.argmax(gap <= 0.0))
    left = right - 1
    share = gap[left] / (gap[left] - gap[right])
    return float(curve.far[left] + share * (curve.far[right] - curve.far[left]))


def eer_threshold(curve: Roc) -> float:
    """The threshold at which the rates of false accepts and of false rejects are nearest to each other."""
    return float(curve.threshold[int(np.argmin(np.abs(1.0 - curve.tar - curve.far)))])


def kfold_accuracy(scores: ArrayLike, same: ArrayLike, fold: ArrayLike) -> FoldResult:
    """Accuracy of each fold at the threshold that is best on all others.

    Candidates are all distinct training scores and +inf; among equally good ones the lowest is taken.

    Args:
        scores: Similarity of each pair, (P,).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,); folds may differ in size.

    Raises:
        DataError: If the shapes differ, a score is NaN, or there are fewer than two folds.
    """
    values, labels = checked(scores, same)
    folds = checked_folds(fold, len(values))
    order = np.argsort(-values, kind="stable")
    ordered, ordered_same, ordered_fold = values[order], labels[order], folds[order]
    gain, ends = np.where(ordered_same, 1, -1), _ends_of_ties(ordered)
    accuracy, threshold = [], []
    for number in np.unique(folds):
        test = ordered_fold == number
        threshold.append(_best_threshold(ordered, gain, ends, ~test))
        right = test & ((ordered >= threshold[-1]) == ordered_same)
        accuracy.append(np.count_nonzero(right) / np.count_nonzero(test))
    return FoldResult(np.array(accuracy), np.array(threshold))


def best_threshold(scores: ArrayLike, same: ArrayLike) -> float:
    """The lowest of the thresholds with the best accuracy on all pairs; +inf if it is best to accept nothing.

    Raises:
        DataError: If the shapes differ, a score is NaN, or there are no pairs.
    """
    values, labels = checked(scores, same)
    order = np.argsort(-values, kind="stable")
    ordered, gain = values[order], np.where(labels[order], 1, -1)
    return _best_threshold(ordered, gain, _ends_of_ties(ordered), np.ones(len(ordered), bool))


def _ends_of_ties(falling: Floats) -> Integers:
    """Last row of each distinct score: equal scores are accepted together."""
    return np.flatnonzero(np.append(falling[1:] != falling[:-1], True))


def _best_threshold(falling: Floats, gain: Integers, ends: Integers, counted: Booleans) -> float:
    """The lowest of the best thresholds among the scores of the pairs that count.

    Args:
        falling: Scores, (P,).
        gain: What accepting each pair adds to the right decisions, 1 or -1, (P,).
        ends: Last row of each distinct score.
        counted: Which pairs count, (P,).
    """
    total = np.cumsum(gain * counted)[ends]  # right decisions more than when nothing is accepted
    lowest = int(ends[len(ends) - 1 - int(np.argmax(total[::-1]))])
    candidate = lowest - int(np.argmax(counted[lowest::-1]))  # the scores of others move no decision that counts
    return float(falling[candidate]) if total.max() >= 0 and counted[candidate] else float(np.inf)


def contiguous_folds(count: int, folds: int) -> Integers:
    """Number of each pair's fold when ``count`` pairs are cut in order; the first folds are longer by one if uneven.

    Raises:
        ConfigError: If there are fewer than two folds or fewer pairs than folds.
    """
    if folds < 2 or count < folds:
        raise ConfigError(f"{count} pairs cannot be cut into {folds} folds; at least 2 folds and a pair in each.")
    return np.repeat(np.arange(folds), [len(part) for part in np.array_split(np.arange(count), folds)])


def balanced_folds(same: ArrayLike, folds: int) -> Integers:
    """Number of each pair's fold when same and different pairs are each cut in order into equal shares.

    Raises:
        ConfigError: If there are fewer than two folds or fewer pairs than folds.
    """
    labels = np.asarray(same, dtype=bool)
    result = contiguous_folds(len(labels), folds)
    for kind in (True, False):
        rows = np.flatnonzero(labels == kind)
        result[rows] = np.arange(len(rows)) * folds // max(len(rows), 1)
    return result


def checked(scores: ArrayLike, same: ArrayLike) -> tuple[Floats, Booleans]:
    """Scores and labels as arrays.

    Raises:
        DataError: If they are not two vectors of one length, or a score is NaN.
    """
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if values.ndim != 1 or values.shape != labels.shape:
        raise DataError(f"scores {values.shape} and labels {labels.shape} must be vectors of one length.")
    if not len(values):
        raise DataError("there are no pairs to evaluate.")
    if np.isnan(values).any():
        raise DataError(f"the score of pair {int(np.argmax(np.isnan(values)))} (from 0) is not a number.")
    return values, labels


def checked_folds(fold: ArrayLike, count: int) -> Integers:
    """Fold numbers as an array.

    Raises:
        DataError: If there is not one for each of ``count`` pairs, or fewer than two folds.
    """
    folds = np.asarray(fold, dtype=np.int64)
    if folds.shape != (count,):
        raise DataError(f"{count} pairs need {count} fold numbers, got shape {folds.shape}.")
    if len(np.unique(folds)) < 2:
        raise DataError("accuracy over folds needs at least two of them: thresholds come from the other folds.")
    return folds
