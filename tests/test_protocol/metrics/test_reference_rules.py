"""Rules of published evaluators on lists small enough to count by hand."""

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.metrics import reference_rules


def test_facexzoo_counts_missing_pairs_as_correct() -> None:
    # Two pairs land in the first fold; the other nine folds are zeros that lie below their threshold.
    result = reference_rules.facexzoo_accuracy([0.9, 0.1], [1, 0])
    assert result.accuracy[1:].tolist() == [1.0] * 9
    # Fold 0 is tested at threshold 0: the same pair is right, the different pair and 598 zeros are not below 0.
    assert result.accuracy[0] == pytest.approx(1 / 600)


def test_facexzoo_counts_a_tie_with_the_threshold_as_wrong() -> None:
    scores = np.tile([0.0, 1.0], 3000)
    same = np.tile([False, True], 3000)
    result = reference_rules.facexzoo_accuracy(scores, same)
    assert result.threshold.tolist() == pytest.approx([0.001] * 10)  # the first of 1,000 steps already separates
    assert result.mean == 1.0
    shifted = reference_rules.facexzoo_accuracy(np.where(same, 1.0, np.float32(0.001)), same)
    assert shifted.mean == 1.0


def test_facexzoo_refuses_more_than_it_holds() -> None:
    with pytest.raises(DataError, match="holds 6000 pairs, got 6001"):
        reference_rules.facexzoo_accuracy(np.zeros(6001), np.zeros(6001))


def test_grid_takes_the_first_of_equal_thresholds_and_accepts_strictly_below() -> None:
    distance, same, fold = [0.5, 1.0, 0.5, 1.0], [1, 0, 1, 0], [0, 0, 1, 1]
    result = reference_rules.grid_accuracy(distance, same, fold)
    assert result.threshold.tolist() == pytest.approx([0.51, 0.51])  # 0.50 would not accept 0.5
    assert result.accuracy.tolist() == [1.0, 1.0]


def test_grid_roc_is_a_mean_over_folds() -> None:
    tpr, fpr = reference_rules.grid_roc([0.5, 1.0, 1.5, 2.0], [1, 0, 1, 0], [0, 0, 1, 1])
    assert (tpr[100], fpr[100]) == (0.5, 0.0)  # at 1.00: only 0.5 lies below
    assert (tpr[399], fpr[399]) == (1.0, 1.0)


def test_val_interpolates_between_the_grid_points_around_the_target() -> None:
    # Training impostors at 1.0 and 2.0: FAR is 0 up to 1.000, then 0.5 from 1.001. Target 0.25 lies half between.
    distance, same = [0.2, 1.0, 2.0] * 2, [1, 0, 0] * 2
    val = reference_rules.val_at_far(distance, same, [0, 0, 0, 1, 1, 1], target=0.25)
    assert val.threshold.tolist() == pytest.approx([1.0005, 1.0005])
    assert val.val.tolist() == [1.0, 1.0]
    assert val.far.tolist() == [0.5, 0.5]  # the threshold really accepts one impostor of two


def test_val_with_impostors_beyond_the_grid_accepts_nothing() -> None:
    val = reference_rules.val_at_far([0.2, 4.0] * 2, [1, 0] * 2, [0, 0, 1, 1])
    assert val.threshold.tolist() == [0.0, 0.0]
    assert val.val.tolist() == [0.0, 0.0]


def test_val_needs_both_kinds_in_every_fold() -> None:
    with pytest.raises(DataError, match="in every fold, but one lacks a kind"):
        reference_rules.val_at_far([0.1, 0.2, 0.3, 0.4], [1, 0, 1, 1], [0, 0, 1, 1])


def test_magface_subtracts_the_mean_of_the_other_folds() -> None:
    random = np.random.default_rng(0)
    person = random.normal(size=(40, 8))
    offset = np.full(8, 50.0)  # hides everything unless it is subtracted
    left = person + offset
    right = np.where(np.arange(40)[:, None] % 2, np.roll(person, 3, axis=0), person + 0.1) + offset
    same = np.arange(40) % 2 == 0
    result = reference_rules.magface_accuracy(left, right, same, np.arange(40) // 8)
    assert result.mean > 0.9
    assert (result.threshold < 1.0).all()
