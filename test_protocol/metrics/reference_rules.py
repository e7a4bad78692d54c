"""How published evaluators count, quirks included, for users who must compare with published tables.

Each function states the rule of one project; `metrics` holds the clean definitions. Where a
reference program would crash, these functions refuse with a sentence instead.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facelab.errors import DataError
from facelab.test_protocol.metrics.metrics import Booleans, Floats, FoldResult, checked, checked_folds

FACEXZOO_FOLDS = 10
FACEXZOO_FOLD_PAIRS = 600
FACEXZOO_STEPS = 1000


@dataclass(frozen=True)
class ValAtFar:
    """What InsightFace prints as ``VAL@FAR``: mean over folds, at thresholds interpolated on the other folds.

    Attributes:
        val: True accept rate of each fold, (K,).
        far: False accept rate that each fold really has, (K,); often above the target.
        threshold: Threshold on the squared distance of each fold, (K,).
    """

    val: Floats
    far: Floats
    threshold: Floats


def facexzoo_accuracy(scores: ArrayLike, same: ArrayLike) -> FoldResult:
    """FaceX-Zoo's LFW evaluator on cosines in list order.

    Pairs fill an array of 10 folds of 600; places that stay empty are different pairs of score 0, which count as
    correct as soon as the threshold is positive. Each threshold is one of 1,000 equal steps from the least to the
    greatest training score and maximises TPR - FPR. A score equal to the threshold is wrong for both classes.

    Raises:
        DataError: If there are more than 6,000 pairs (there the original stops with an IndexError), or a NaN.
    """
    values, labels = checked(scores, same)
    places = FACEXZOO_FOLDS * FACEXZOO_FOLD_PAIRS
    if len(values) > places:
        raise DataError(f"FaceX-Zoo's evaluator holds {places} pairs, got {len(values)}; use exact thresholds.")
    # float32, as the original keeps them: ties with a threshold depend on it.
    table = np.zeros((FACEXZOO_FOLDS, FACEXZOO_FOLD_PAIRS), np.float32)
    truth = np.zeros(table.shape, bool)
    table.flat[: len(values)], truth.flat[: len(values)] = values, labels
    accuracy, threshold = [], []
    for fold in range(FACEXZOO_FOLDS):
        training = np.arange(FACEXZOO_FOLDS) != fold
        best = _facexzoo_threshold(table[training].ravel(), truth[training].ravel())
        right = np.where(truth[fold], table[fold] > best, table[fold] < best)
        accuracy.append(right.mean())
        threshold.append(best)
    return FoldResult(np.array(accuracy), np.array(threshold, np.float64))


def _facexzoo_threshold(scores: NDArray[np.float32], same: Booleans) -> float:
    low = scores.min()
    # From 1, as in the original: the least score itself is never tried.
    steps = low + (scores.max() - low) / FACEXZOO_STEPS * np.arange(1, FACEXZOO_STEPS + 1)
    if same.all() or not same.any():
        return float(steps[0])  # the rate of the missing class is NaN there, and argmax takes the first NaN
    tpr, fpr = _share_above(scores[same], steps), _share_above(scores[~same], steps)
    return float(steps[np.argmax(tpr - fpr)])


def _share_above(scores: NDArray[np.float32], thresholds: Floats) -> Floats:
    ordered = np.sort(scores).astype(np.float64)
    above = len(ordered) - np.searchsorted(ordered, thresholds, side="right")
    return above / len(ordered)  # not 1 - below / n: rounding would then decide which of equal maxima is taken


def grid_accuracy(distance: ArrayLike, same: ArrayLike, fold: ArrayLike, step: float = 0.01) -> FoldResult:
    """InsightFace's accuracy: thresholds 0, 0.01, … below 4 on the squared distance, accept where ``distance < t``.

    Of equally good training thresholds the first (lowest) is taken. PETALface and AdaFace share the rule.

    Args:
        distance: Distance of each pair, (P,).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,).
        step: Distance between thresholds.

    Raises:
        DataError: If shapes differ, a distance is NaN, or there are fewer than two folds.
    """
    values, labels = checked(distance, same)
    folds = checked_folds(fold, len(values))
    # Squared distances of unit vectors lie between 0 and 4.
    thresholds = np.arange(0.0, 4.0, step)
    numbers = np.unique(folds)
    accepted_same = np.stack([_accepted(values[(folds == k) & labels], thresholds) for k in numbers])
    accepted_different = np.stack([_accepted(values[(folds == k) & ~labels], thresholds) for k in numbers])
    sizes = np.array([np.sum(folds == k) for k in numbers])
    negatives = np.array([np.sum((folds == k) & ~labels) for k in numbers])
    right = accepted_same + negatives[:, None] - accepted_different  # (K, T)
    best = np.argmax((right.sum(axis=0) - right) / (sizes.sum() - sizes)[:, None], axis=1)
    accuracy = right[np.arange(len(numbers)), best] / sizes
    return FoldResult(accuracy, thresholds[best])


def grid_roc(distance: ArrayLike, same: ArrayLike, fold: ArrayLike, step: float = 0.01) -> tuple[Floats, Floats]:
    """InsightFace's ROC: TPR and FPR at thresholds 0, 0.01, …, each a mean over folds; (T,) and (T,).

    A fold without pairs of a class counts as rate 0.

    Raises:
        DataError: If shapes differ, a distance is NaN, or there are fewer than two folds.
    """
    values, labels = checked(distance, same)
    folds = checked_folds(fold, len(values))
    thresholds = np.arange(0.0, 4.0, step)
    rates = []
    for kind in (True, False):
        rows = [values[(folds == k) & (labels == kind)] for k in np.unique(folds)]
        rates.append(np.mean([_accepted(row, thresholds) / max(len(row), 1) for row in rows], axis=0))
    return rates[0], rates[1]


def val_at_far(distance: ArrayLike, same: ArrayLike, fold: ArrayLike, target: float = 1e-3) -> ValAtFar:
    """InsightFace's ``VAL@FAR``: thresholds 0, 0.001, … below 4 on the squared distance.

    The threshold of a fold is interpolated linearly where the false accept rate of the other folds reaches ``target``.
    That curve repeats values, on which current scipy raises an error; as older releases did, the interpolation starts
    at the LAST point whose rate does not exceed the target.

    Raises:
        DataError: If shapes differ, a distance is NaN, there are fewer than two folds, or a fold lacks a class.
    """
    values, labels = checked(distance, same)
    folds = checked_folds(fold, len(values))
    thresholds = np.arange(0.0, 4.0, 0.001)
    val, far, chosen = [], [], []
    for number in np.unique(folds):
        test = folds == number
        positives, negatives = values[test & labels], values[test & ~labels]
        impostors = values[~test & ~labels]
        if not len(positives) or not len(negatives) or not len(impostors):
            raise DataError("VAL@FAR needs same and different pairs in every fold, but one lacks a kind.")
        chosen.append(_interpolate(_accepted(impostors, thresholds) / len(impostors), thresholds, target))
        val.append(np.mean(positives < chosen[-1]))
        far.append(np.mean(negatives < chosen[-1]))
    return ValAtFar(np.array(val), np.array(far), np.array(chosen))


def _interpolate(far: Floats, thresholds: Floats, target: float) -> float:
    if far.max() < target:
        return 0.0
    last = int(np.flatnonzero(far <= target)[-1])
    if last + 1 == len(far):
        return float(thresholds[last])
    share = (target - far[last]) / (far[last + 1] - far[last])
    return float(thresholds[last] + share * (thresholds[last + 1] - thresholds[last]))


def magface_accuracy(left: ArrayLike, right: ArrayLike, same: ArrayLike, fold: ArrayLike) -> FoldResult:
    """MagFace's ``eval_1v1``: the mean embedding of the training folds is subtracted before the angle is taken.

    Distance is ``arccos(cosine) / pi``, thresholds 0, 0.01, …, accept where ``distance < t``.

    Args:
        left: Raw embeddings of the first images, (P, D).
        right: Raw embeddings of the second images, (P, D).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,).

    Raises:
        DataError: If shapes differ, a value is NaN, or there are fewer than two folds.
    """
    first, second = np.asarray(left, np.float64), np.asarray(right, np.float64)
    folds = checked_folds(fold, len(first))
    accuracy, threshold = [], []
    for position, number in enumerate(np.unique(folds)):
        training = folds != number
        mean = np.concatenate((first[training], second[training])).mean(axis=0)
        # The original shares InsightFace's thresholds up to 4, though this distance ends at 1: only the first 100
        # matter.
        result = grid_accuracy(_angle(first - mean, second - mean), same, folds)
        accuracy.append(result.accuracy[position])
        threshold.append(result.threshold[position])
    return FoldResult(np.array(accuracy), np.array(threshold))


def _angle(left: Floats, right: Floats) -> Floats:
    cosine = np.sum(left * right, axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return np.asarray(np.arccos(np.clip(cosine, -1.0, 1.0)) / np.pi)


def _accepted(distance: Floats, thresholds: Floats) -> Floats:
    """How many distances lie below each threshold, (T,)."""
    return np.searchsorted(np.sort(distance), thresholds, side="left").astype(np.float64)
