"""Samplers: each epoch is complete, epochs differ, and any part of an epoch can be asked for alone."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from facelab.data.base import SAMPLERS, Sampler
from facelab.errors import ConfigError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), [1, 2, 3, 5, 8, 13, 21])).astype(np.int64)


def build(name: str, labels: np.ndarray = LABELS, seed: int = 0, **options: Any) -> Sampler:
    return SAMPLERS.build(name, options, labels=labels, seed=seed)


def epoch_of(sampler: Sampler, epoch: int = 0) -> list[int]:
    return sampler.rows(epoch, 0, len(sampler)).tolist()


@pytest.mark.parametrize("name", ["Shuffle", "Sequential"])
def test_each_image_once(name: str) -> None:
    assert sorted(epoch_of(build(name))) == list(range(len(LABELS)))


@pytest.mark.parametrize("name", ["ClassBalanced", "PairsAndInstances", "Shuffle", "Sequential"])
def test_parts_make_the_whole(name: str) -> None:
    sampler = build(name, seed=3)
    whole = sampler.rows(4, 0, len(sampler))
    cuts = [0, 5, 5, 17, len(sampler)]
    parts = [sampler.rows(4, start, stop) for start, stop in pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.shape == (len(sampler),)
    assert whole.dtype == np.int64


@pytest.mark.parametrize("name", ["ClassBalanced", "PairsAndInstances", "Shuffle"])
def test_epochs_and_seeds_differ_and_repeat(name: str) -> None:
    assert epoch_of(build(name), 0) != epoch_of(build(name), 1)
    assert epoch_of(build(name, seed=1)) != epoch_of(build(name, seed=2))
    assert epoch_of(build(name, seed=1)) == epoch_of(build(name, seed=1))


def test_sequential_keeps_the_order() -> None:
    assert epoch_of(build("Sequential"), 9) == list(range(len(LABELS)))


def test_shuffle_resumes_at_once_in_an_epoch_of_a_hundred_million() -> None:
    labels = np.broadcast_to(np.int64(0), (100_000_000,))  # costs 8 bytes
    rows = build("Shuffle", labels).rows(2, 99_999_488, 100_000_000)
    assert len(np.unique(rows)) == 512


def test_class_balanced_groups_are_one_class_without_repetition() -> None:
    sampler = build("ClassBalanced", images_per_class=3)
    assert len(sampler) == len(LABELS) // 3 * 3
    groups = sampler.rows(0, 0, len(sampler)).reshape(-1, 3)
    for group in groups:
        (label,) = set(LABELS[group].tolist())
        assert len(set(group.tolist())) == min(3, (label == LABELS).sum())


def test_class_balanced_visits_classes_equally_often() -> None:
    sampler = build("ClassBalanced", images_per_class=2)
    classes = LABELS[sampler.rows(1, 0, len(sampler))[::2]]
    assert len(classes) == 26
    for start in range(0, 21, 7):
        assert sorted(classes[start : start + 7].tolist()) == list(range(7))


def test_class_balanced_orders_the_classes_anew_in_each_round() -> None:
    sampler = build("ClassBalanced", images_per_class=2)
    classes = LABELS[sampler.rows(0, 0, 42)[::2]].reshape(3, 7)
    assert len({tuple(order) for order in classes.tolist()}) == 3


def test_class_balanced_draws_from_each_class_and_in_each_round_in_its_own_way() -> None:
    labels = np.repeat(np.arange(4), 9)  # all of one size, image j of class c is number 9 c + j
    drawn = np.reshape(epoch_of(build("ClassBalanced", labels, images_per_class=3)), (12, 3))
    assert len({tuple(group) for group in (drawn % 9).tolist()}) >= 10  # three of nine have 504 orders


def test_class_balanced_reaches_every_image() -> None:
    sampler = build("ClassBalanced", images_per_class=2)
    seen = {image for epoch in range(60) for image in epoch_of(sampler, epoch)}
    assert seen == set(range(len(LABELS)))


@pytest.mark.parametrize("images_per_class", [0, 54])
def test_class_balanced_refuses_impossible_sizes(images_per_class: int) -> None:
    with pytest.raises(ConfigError, match=rf"images_per_class is {images_per_class}, but must lie in \[1, 53\]"):
        build("ClassBalanced", images_per_class=images_per_class)


def test_rows_outside_an_epoch_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows 50 to 54 are not inside an epoch of 53 rows"):
        build("Shuffle").rows(0, 50, 54)


@pytest.mark.parametrize(("same", "mixed"), [(2, 1), (1, 1), (3, 0)])
def test_pairs_of_one_person_alternate_with_pairs_of_any_images(same: int, mixed: int) -> None:
    sampler = build("PairsAndInstances", same=same, mixed=mixed)
    rows = sampler.rows(0, 0, len(sampler))
    assert len(rows) == 52
    of_same = np.arange(26) % (same + mixed) < same
    pairs = rows.reshape(-1, 2)
    people = LABELS[pairs]
    assert (people[of_same, 0] == people[of_same, 1]).all()
    assert sorted(people[of_same, 0][:7].tolist()) == list(range(7))
    images = pairs[~of_same].ravel()
    assert len(set(images.tolist())) == len(images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"same": 0}, r"PairsAndInstances same is 0, but must lie in \[1, inf"),
        ({"mixed": -1}, "PairsAndInstances mixed is -1"),
    ],
)
def test_a_turn_without_pairs_is_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build("PairsAndInstances", **options)
