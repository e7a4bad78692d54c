"""Verification metrics of many millions of scores: a few operating points without sorting, and the turns of the ROC.

Same definitions as `metrics`, on same and different pairs given apart. Scores stay in float32.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError, in_range
from facelab.test_protocol.metrics.metrics import OperatingPoint, Roc

Scores = NDArray[np.floating]


def tar_at_far(positives: Scores, negatives: Scores, targets: Sequence[float]) -> list[OperatingPoint]:
    """The same operating points as `metrics.tar_at_far` on the ROC of all scores, by selection instead of sorting.

    With k false accepts allowed, whatever lies above the (k + 1)-th largest negative score may be accepted.

    Args:
        positives: Scores of same pairs, (P,).
        negatives: Scores of different pairs, (N,).
        targets: False accept rates in (0, 1].

    Raises:
        ConfigError: If a target is not in (0, 1].
        DataError: If a class is empty or a score is NaN.
    """
    _check(positives, negatives)
    for target in targets:
        in_range("a target FAR", target, 0.0, 1.0, low_open=True)
    count = len(negatives)
    # A partition puts the few wanted order statistics in their places in O(N); a ROC would sort 10**8 impostors.
    places = [count - 1 - allowed(target, count) for target in targets]  # in rising order; -1: all may be accepted
    ordered = np.partition(negatives, sorted({place for place in places if place >= 0}) or [0])
    bounds = [float(ordered[place]) if place >= 0 else -np.inf for place in places]
    return [_point(positives, negatives, target, bound) for target, bound in zip(targets, bounds, strict=True)]


def allowed(target: float, count: int) -> int:
    """How many of ``count`` may be accepted for a rate of at most ``target``, as floating point sees it."""
    # target * count may be rounded up or down: start one higher, and let the quotient that reports show decide.
    most = min(int(target * count) + 1, count)
    while most / count > target:
        most -= 1
    return most


def _point(positives: Scores, negatives: Scores, target: float, bound: float) -> OperatingPoint:
    # Strictly above the first score that is too many: all of its ties stay out, else the rate would exceed the target.
    accepted, false = (scores[scores > bound] for scores in (positives, negatives))
    lowest = [float(scores.min()) for scores in (accepted, false) if len(scores)]
    return OperatingPoint(
        target=target,
        tar=len(accepted) / len(positives),
        far=len(false) / len(negatives),
        threshold=min(lowest, default=np.inf),
        measurable=len(negatives) * target >= 1.0 - 1e-9,  # 1000 * 1e-3 must count as one
    )


def turning_points(positives: Scores, negatives: Scores) -> Roc:
    """The ROC at its turns alone: at every score of a same pair and just before it, and at both ends.

    Between two turns only false accepts are added, a straight line. So AUC, EER and every TAR are those of the whole
    curve, which would have as many points as there are different pairs.

    Args:
        positives: Scores of same pairs, (P,).
        negatives: Scores of different pairs, (N,).

    Raises:
        DataError: If a class is empty or a score is NaN.
    """
    _check(positives, negatives)
    same, different = np.sort(positives), np.sort(negatives)
    score = np.unique(same)[::-1]
    lowest = min(same[0], different[0])
    threshold = np.concatenate(([np.inf], np.stack([_next_above(score, same, different), score], 1).ravel(), [lowest]))
    threshold = threshold[np.concatenate(([True], threshold[1:] < threshold[:-1]))]
    false, true = (len(scores) - np.searchsorted(scores, threshold) for scores in (different, same))
    return Roc(threshold, false / len(different), true / len(same), len(same), len(different))


def _next_above(score: Scores, same: Scores, different: Scores) -> NDArray[np.float64]:
    """The lowest of all scores above each of some, +inf if there is none."""
    places = (np.append(scores, np.inf)[np.searchsorted(scores, score, side="right")] for scores in (same, different))
    return np.asarray(np.minimum(*places), np.float64)


def _check(positives: Scores, negatives: Scores) -> None:
    for scores, kind in ((positives, "same"), (negatives, "different")):
        if not len(scores):
            raise DataError(f"a ROC curve needs both same and different pairs, but none is {kind}.")
        if np.isnan(scores).any():
            raise DataError(f"a score of a {kind} pair is not a number.")
