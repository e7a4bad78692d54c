"""Selection and turning points against the sorted ROC of all scores, ties included."""

import numpy as np
import pytest
from numpy.typing import NDArray

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.metrics.operating_points import allowed, tar_at_far, turning_points

TARGETS = (1e-4, 1e-3, 0.01, 0.1, 1 / 3, 0.5, 0.999, 1.0)


def drawn(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores of same and of different pairs; some sets have many ties."""
    random = np.random.default_rng(seed)
    levels = [3, 20, 1_000_000][seed % 3]
    same, different = random.normal(0.3, 0.3, random.integers(1, 60)), random.normal(0, 0.3, random.integers(1, 2000))
    return tuple((np.round(x * levels) / levels).astype(np.float32) for x in (same, different))  # type: ignore[return-value]


def sorted_roc(same: NDArray[np.float32], different: NDArray[np.float32]) -> metrics.Roc:
    return metrics.roc(np.concatenate((same, different)), np.arange(len(same) + len(different)) < len(same))


@pytest.mark.parametrize("seed", range(60))
def test_selection_equals_sorting(seed: int) -> None:
    same, different = drawn(seed)
    assert tar_at_far(same, different, TARGETS) == metrics.tar_at_far(sorted_roc(same, different), TARGETS)


@pytest.mark.parametrize("seed", range(60))
def test_turns_tell_what_the_whole_curve_tells(seed: int) -> None:
    same, different = drawn(seed)
    turns, whole = turning_points(same, different), sorted_roc(same, different)
    assert len(turns.far) <= 2 * len(same) + 2
    points = set(zip(whole.threshold, whole.far, whole.tar, strict=True))
    assert set(zip(turns.threshold, turns.far, turns.tar, strict=True)) <= points
    assert metrics.auc(turns) == pytest.approx(metrics.auc(whole), abs=1e-12)
    assert metrics.eer(turns) == pytest.approx(metrics.eer(whole), abs=1e-12)
    for ours, theirs in zip(metrics.tar_at_far(turns, TARGETS), metrics.tar_at_far(whole, TARGETS), strict=True):
        assert ours.tar == theirs.tar


def test_by_hand() -> None:
    same, different = np.array([0.9, 0.5, 0.2], np.float32), np.array([0.7, 0.5, 0.1, 0.0], np.float32)
    quarter, half, whole = tar_at_far(same, different, (0.25, 0.5, 1.0))
    assert (quarter.tar, quarter.far, quarter.threshold) == (1 / 3, 0.25, pytest.approx(0.7))
    assert (half.tar, half.far, half.threshold) == (1.0, 0.5, pytest.approx(0.2))
    assert (whole.tar, whole.far, whole.threshold) == (1.0, 1.0, 0.0)
    assert not tar_at_far(same, different, (0.2,))[0].measurable
    assert quarter.measurable


@pytest.mark.parametrize("count", [1, 3, 7, 10, 29, 100, 15_638_932])
def test_allowed_counts_as_the_curve_does(count: int) -> None:
    for target in (1e-6, 0.01, 0.07, 0.1, 0.29, 1 / 3, 0.7, 1.0):
        most = allowed(target, count)
        assert most / count <= target
        assert most == count or (most + 1) / count > target


def test_refusals() -> None:
    score = np.array([0.5], np.float32)
    with pytest.raises(DataError, match="none is different"):
        tar_at_far(score, score[:0], (0.1,))
    with pytest.raises(DataError, match="none is same"):
        turning_points(score[:0], score)
    with pytest.raises(DataError, match="a score of a different pair is not a number"):
        tar_at_far(score, np.array([np.nan], np.float32), (0.1,))
    with pytest.raises(ConfigError, match=r"a target FAR is 0\.0"):
        tar_at_far(score, score, (0.0,))
