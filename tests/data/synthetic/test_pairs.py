"""Pairs as LFW has them: balanced folds without common persons, no pair twice."""

import numpy as np
import pytest

from facelab.data.synthetic.pairs import draw_pairs
from facelab.errors import ConfigError

LABELS = np.repeat(np.arange(30), 5)


@pytest.mark.parametrize(("folds", "pairs"), [(1, 60), (3, 120), (10, 200)])
def test_every_fold_has_as_many_same_as_different_pairs(folds: int, pairs: int) -> None:
    drawn = draw_pairs(LABELS, folds, pairs)
    assert np.bincount(drawn.fold).tolist() == [pairs // folds] * folds
    assert np.bincount(drawn.fold, weights=drawn.same).tolist() == [pairs / folds / 2] * folds
    assert np.array_equal(LABELS[drawn.pairs[:, 0]] == LABELS[drawn.pairs[:, 1]], drawn.same)


def test_no_pair_comes_twice_in_either_order() -> None:
    drawn = draw_pairs(LABELS, 10, 600)  # every same pair that there is
    assert len(np.unique(np.sort(drawn.pairs, axis=1), axis=0)) == 600
    assert (drawn.pairs[:, 0] != drawn.pairs[:, 1]).all()


def test_no_person_is_in_two_folds() -> None:
    drawn = draw_pairs(LABELS, 5, 200)
    persons = [set(LABELS[drawn.pairs[drawn.fold == fold]].ravel().tolist()) for fold in range(5)]
    assert sum(map(len, persons)) == len(set().union(*persons))


def test_labels_may_come_in_any_order() -> None:
    shuffled = np.random.default_rng(0).permutation(LABELS)
    drawn = draw_pairs(shuffled, 2, 80)
    assert np.array_equal(shuffled[drawn.pairs[:, 0]] == shuffled[drawn.pairs[:, 1]], drawn.same)


def test_the_seed_decides() -> None:
    assert np.array_equal(draw_pairs(LABELS, 2, 80, seed=4).pairs, draw_pairs(LABELS, 2, 80, seed=4).pairs)
    assert not np.array_equal(draw_pairs(LABELS, 2, 80, seed=4).pairs, draw_pairs(LABELS, 2, 80, seed=5).pairs)


@pytest.mark.parametrize(
    ("labels", "folds", "pairs", "sentence"),
    [
        (LABELS, 0, 10, "folds is 0"),
        (LABELS, 3, 10, "pairs is 10, but 3 folds of same and different pairs need a multiple of 6"),
        (LABELS, 1, 0, "pairs is 0"),
        (LABELS, 10, 620, "a fold of 3 persons has 30 pairs of one person, but 31 are wanted"),
        (np.repeat(np.arange(2), 5), 2, 4, "a fold of 1 persons has 0 pairs of two persons, but 1 are wanted"),
    ],
)
def test_refusals(labels: np.ndarray, folds: int, pairs: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        draw_pairs(labels, folds, pairs)
