"""Metrics against values worked by hand and against brute force."""

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.metrics import metrics

SCORES = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.5, 0.2, 0.1])
SAME = np.array([1, 1, 0, 1, 0, 1, 0, 0], bool)


def test_roc_accepts_equal_scores_together() -> None:
    curve = metrics.roc(SCORES, SAME)
    assert curve.threshold.tolist() == [np.inf, 0.9, 0.8, 0.6, 0.5, 0.2, 0.1]
    assert curve.tar.tolist() == [0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert curve.far.tolist() == [0, 0, 0.25, 0.25, 0.5, 0.75, 1]


def test_auc_counts_ties_half() -> None:
    better = sum(float(p > n) + 0.5 * float(p == n) for p in SCORES[SAME] for n in SCORES[~SAME])
    assert metrics.auc(metrics.roc(SCORES, SAME)) == pytest.approx(better / 16)


def test_eer_lies_between_the_neighbouring_points() -> None:
    # FAR 0.25 meets FRR 0.25 exactly at threshold 0.6
    assert metrics.eer(metrics.roc(SCORES, SAME)) == pytest.approx(0.25)
    # (FAR, FRR) goes from (0, 0.5) straight to (0.5, 0): they meet at 0.25
    assert metrics.eer(metrics.roc([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])) == pytest.approx(0.25)


@pytest.mark.parametrize(("target", "tar", "threshold"), [(0.25, 0.75, 0.6), (0.3, 0.75, 0.6), (0.5, 1.0, 0.5)])
def test_tar_at_far_is_the_largest_within_the_target(target: float, tar: float, threshold: float) -> None:
    (point,) = metrics.tar_at_far(metrics.roc(SCORES, SAME), [target])
    assert (point.tar, point.threshold, point.measurable) == (tar, threshold, True)
    assert point.far <= target


def test_tar_at_far_says_when_there_are_too_few_negatives() -> None:
    (point,) = metrics.tar_at_far(metrics.roc(SCORES, SAME), [0.2])
    assert not point.measurable
    assert point.far == 0.0


def test_the_exact_number_of_negatives_suffices() -> None:
    scores = np.arange(20) / 20
    (point,) = metrics.tar_at_far(metrics.roc(scores, np.arange(20) % 2), [0.1])
    assert point.measurable
    assert point.far == 0.1


def brute_force_accuracy(scores: np.ndarray, same: np.ndarray, fold: np.ndarray) -> tuple[list[float], list[float]]:
    accuracy, thresholds = [], []
    for number in np.unique(fold):
        train, test = fold != number, fold == number
        candidates = sorted({*scores[train], np.inf})
        right = [np.mean((scores[train] >= t) == same[train]) for t in candidates]
        best = candidates[int(np.argmax(right))]
        thresholds.append(best)
        accuracy.append(float(np.mean((scores[test] >= best) == same[test])))
    return accuracy, thresholds


@pytest.mark.parametrize("seed", range(8))
def test_fold_accuracy_equals_brute_force_with_ties_and_uneven_folds(seed: int) -> None:
    random = np.random.default_rng(seed)
    same = random.random(61) < random.uniform(0.1, 0.9)
    scores = np.round(random.normal(same * random.uniform(-0.5, 1.5), 1.0), 1)  # rounding makes ties
    fold = metrics.contiguous_folds(61, 7)
    result = metrics.kfold_accuracy(scores, same, fold)
    accuracy, threshold = brute_force_accuracy(scores, same, fold)
    assert result.accuracy.tolist() == pytest.approx(accuracy)
    assert result.threshold.tolist() == threshold


def test_accuracy_does_not_depend_on_the_order_of_pairs() -> None:
    random = np.random.default_rng(3)
    same, fold = random.random(200) < 0.5, random.integers(0, 5, 200)
    scores = np.round(random.normal(same, 1.0), 1)
    order = random.permutation(200)
    shuffled = metrics.kfold_accuracy(scores[order], same[order], fold[order])
    assert shuffled.accuracy.tolist() == metrics.kfold_accuracy(scores, same, fold).accuracy.tolist()


def test_spreads() -> None:
    result = metrics.FoldResult(np.array([0.8, 1.0]), np.zeros(2))
    assert result.mean == pytest.approx(0.9)
    assert result.deviation == pytest.approx(0.1)
    assert result.standard_error == pytest.approx(0.1)


def test_uneven_contiguous_folds_are_longer_first() -> None:
    assert metrics.contiguous_folds(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_balanced_folds_share_both_classes() -> None:
    same = np.repeat([True, False], [10, 20])
    fold = metrics.balanced_folds(same, 5)
    assert np.bincount(fold[same]).tolist() == [2] * 5
    assert np.bincount(fold[~same]).tolist() == [4] * 5


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"score of pair 1 \(from 0\) is not a number"):
        metrics.roc([0.1, np.nan], [0, 1])
    with pytest.raises(DataError, match="of 2 pairs none is different"):
        metrics.roc([0.1, 0.2], [1, 1])
    with pytest.raises(DataError, match="vectors of one length"):
        metrics.roc([0.1, 0.2], [1])
    with pytest.raises(DataError, match="no pairs"):
        metrics.roc([], [])
    with pytest.raises(DataError, match="at least two"):
        metrics.kfold_accuracy([0.1, 0.2], [0, 1], [0, 0])
    with pytest.raises(DataError, match="need 2 fold numbers"):
        metrics.kfold_accuracy([0.1, 0.2], [0, 1], [0])
    with pytest.raises(ConfigError, match="3 pairs cannot be cut into 5 folds"):
        metrics.contiguous_folds(3, 5)
    with pytest.raises(ConfigError, match="target FAR"):
        metrics.tar_at_far(metrics.roc(SCORES, SAME), [0.0])


def test_threshold_of_the_equal_error_rate() -> None:
    curve = metrics.roc([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True, True, False, True, False, False])
    assert metrics.eer_threshold(curve) == 0.7  # a third of the same pairs is rejected, a third of the others accepted
