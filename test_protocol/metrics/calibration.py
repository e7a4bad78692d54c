"""From scores to likelihood ratios: a logistic calibration, what it costs, and the least that any calibration costs.

A log-likelihood ratio (LLR) is the natural logarithm of how much likelier a score is for two images of one person than
for images of two. Its cost is Cllr (Brümmer and du Preez, Computer Speech and Language 20, 2006, Eq. 12), in bits:

    Cllr = 1/2 (mean over same pairs of log2(1 + e^-LLR) + mean over different pairs of log2(1 + e^LLR))

0 for an oracle, 1 for a system that always says "I do not know" (LLR 0), more for one that misleads. What of it is the
calibration's fault, and not that of the scores, is Cllr - minCllr: the latter is the cost after the best rising map of
the scores, which pooling adjacent violators (PAV) finds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facelab.errors import DataError
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers, checked

MOST_STEPS = 100
SMALL_GRADIENT = 1e-10
SUFFICIENT = 1e-4  # of the decrease that the gradient promises, as usual (Armijo)


@dataclass(frozen=True)
class LogisticMap:
    """LLR = slope * score + offset.

    Attributes:
        slope: Per unit of score.
        offset: LLR of the score 0.
    """

    slope: float
    offset: float

    def llr(self, scores: ArrayLike) -> Floats:
        """Natural log-likelihood ratio of each score."""
        return np.asarray(self.slope * np.asarray(scores, np.float64) + self.offset)


def fit_logistic(scores: ArrayLike, same: ArrayLike) -> LogisticMap:
    """The line through the scores whose LLRs cost least, both kinds of pairs weighing one half (effective prior 0.5).

    So the share of same pairs in the list does not matter. Newton's method on the two numbers, on standardised scores,
    each step halved until it helps. Where the two kinds do not overlap at all, the best slope would be infinite: the
    targets are those of Platt (1999), (N+ + 1) / (N+ + 2) for same and 1 / (N- + 2) for different pairs, with which
    there is always one finite optimum; with thousands of pairs they change nothing that could be seen.

    Args:
        scores: Similarity of each pair, finite, (P,).
        same: Whether each pair shows one person, (P,).

    Raises:
        DataError: If the shapes differ, a score is not finite, one of the two classes is missing, all scores are
            equal, or same pairs do not score higher than different ones.
    """
    values, labels = _both_kinds(scores, same)
    if not np.isfinite(values).all():
        raise DataError(f"the score of pair {int(np.argmin(np.isfinite(values)))} (from 0) is not finite.")
    centre, spread = float(values.mean()), float(values.std())
    if not spread > 0.0:
        raise DataError(f"all {len(values):,} scores are {centre:g}, so nothing can be learned from them.")
    count = np.where(labels, labels.sum(), (~labels).sum()).astype(np.float64)
    target = np.where(labels, (count + 1.0) / (count + 2.0), 1.0 / (count + 2.0))
    slope, offset = _newton((values - centre) / spread, target, 0.5 / count)
    if not slope > 0.0:
        raise DataError("same pairs do not score higher than different pairs, so scores cannot be made probabilities.")
    return LogisticMap(slope / spread, offset - slope * centre / spread)


def _newton(score: Floats, target: Floats, weight: Floats) -> tuple[float, float]:
    """Slope and offset with the least weighted cross-entropy, which is convex."""
    design = np.stack([score, np.ones_like(score)])
    line = np.zeros(2)
    cost = _entropy(line @ design, target, weight)
    for _ in range(MOST_STEPS):
        rate = _sigmoid(line @ design)
        gradient = design @ (weight * (rate - target))
        if np.abs(gradient).max() < SMALL_GRADIENT:
            break
        curvature = (design * (weight * rate * (1.0 - rate))) @ design.T
        step = np.linalg.solve(curvature + 1e-14 * np.eye(2), gradient)
        share = 1.0
        # Far from the optimum a full step may overshoot to where all rates are 0 or 1.
        while (new := _entropy((line - share * step) @ design, target, weight)) > cost - SUFFICIENT * share * (
            gradient @ step
        ):
            share /= 2.0
            if share < 1e-10:  # no step helps within rounding: this is the optimum
                return float(line[0]), float(line[1])
        line, cost = line - share * step, new
    return float(line[0]), float(line[1])


def _entropy(llr: Floats, target: Floats, weight: Floats) -> float:
    return float(weight @ (np.logaddexp(0.0, llr) - target * llr))


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -values)))  # without overflow on either side


def cllr(llr: ArrayLike, same: ArrayLike) -> float:
    """Cost of log-likelihood ratios in bits.

    Args:
        llr: Natural log-likelihood ratio of each pair, ±inf allowed, (P,).
        same: Whether each pair shows one person, (P,).

    Raises:
        DataError: If the shapes differ, a value is NaN, or one of the two classes is missing.
    """
    values, labels = _both_kinds(llr, same)
    sides = (np.logaddexp(0.0, -values[labels]).mean(), np.logaddexp(0.0, values[~labels]).mean())
    return float(sum(sides) / (2.0 * np.log(2.0)))


def min_cllr(scores: ArrayLike, same: ArrayLike) -> float:
    """The least cost in bits that any rising map of the scores could have on these pairs.

    Args:
        scores: Similarity of each pair, ±inf allowed, (P,).
        same: Whether each pair shows one person, (P,).

    Raises:
        DataError: If the shapes differ, a score is NaN, or one of the two classes is missing.
    """
    values, labels = _both_kinds(scores, same)
    rate = isotonic(values, labels)
    with np.errstate(divide="ignore"):
        odds = np.log(rate) - np.log1p(-rate)
    return cllr(odds - np.log(labels.sum() / (~labels).sum()), labels)


def isotonic(scores: ArrayLike, same: ArrayLike) -> Floats:
    """Share of same pairs as the best rising function of the score: adjacent violators are pooled; at each pair, (P,).

    Raises:
        DataError: If the shapes differ or a score is NaN.
    """
    values, labels = checked(scores, same)
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)  # equal scores get one rate
    place = place.reshape(-1)
    true = np.bincount(place, labels, len(count)).astype(np.int64)
    size = np.ones(len(count), np.int64)
    # Neighbours that do not rise end in one block whatever comes later. Pooled at once, no more blocks are left than
    # there are pairs of the rarer kind, and few for the loop.
    starts = np.flatnonzero(np.append(True, ~_falls(true[:-1], count[:-1], true[1:], count[1:])))
    blocks = [np.add.reduceat(part, starts) for part in (true, count, size)]
    true, count, size = (np.array(part, np.int64) for part in _pooled(*(part.tolist() for part in blocks)))
    return np.asarray(np.repeat(true / count, size)[place])


def _falls(true: Integers, count: Integers, next_true: Integers, next_count: Integers) -> Booleans:
    """Whether a rate is not below the next one, in whole numbers."""
    return np.asarray(true * next_count >= next_true * count)


def _pooled(true: list[int], count: list[int], size: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Blocks of strictly rising rates: each new one swallows those before it that are not below it."""
    kept: list[tuple[int, int, int]] = []
    for block in zip(true, count, size, strict=True):
        while kept and kept[-1][0] * block[1] >= block[0] * kept[-1][1]:
            before = kept.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        kept.append(block)
    trues, counts, sizes = zip(*kept, strict=True)
    return list(trues), list(counts), list(sizes)


def _both_kinds(scores: ArrayLike, same: ArrayLike) -> tuple[Floats, Booleans]:
    values, labels = checked(scores, same)
    if labels.all() or not labels.any():
        raise DataError(f"a calibration needs same and different pairs; all {len(labels)} are of one kind.")
    return values, labels
