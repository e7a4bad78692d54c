"""What holds for every registered sampler, so that a run can be resumed, repeated and shared by several processes."""

from itertools import pairwise

import numpy as np
import pytest

from facelab.data.base import SAMPLERS, Sampler
from facelab.data.loading.loader import Loader
from facelab.data.synthetic.source import SyntheticFaces

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), [1, 2, 3, 5, 8, 13, 21])).astype(np.int64)
EPOCHS = (0, 1, 7)

every_sampler = pytest.mark.parametrize("name", SAMPLERS.names())


def build(name: str, seed: int = 0) -> Sampler:
    return SAMPLERS.build(name, {}, labels=LABELS, seed=seed)


def epoch_of(sampler: Sampler, epoch: int) -> np.ndarray:
    return sampler.rows(epoch, 0, len(sampler))


@every_sampler
def test_rows_are_images_that_exist(name: str) -> None:
    sampler = build(name)
    for epoch in EPOCHS:
        rows = epoch_of(sampler, epoch)
        assert rows.shape == (len(sampler),)
        assert rows.dtype == np.int64
        assert rows.min() >= 0
        assert rows.max() < len(LABELS)


@every_sampler
def test_parts_make_the_whole(name: str) -> None:
    sampler = build(name, seed=3)
    size = len(sampler)
    cuts = [0, size // 9, size // 9, size // 2, size]
    for epoch in EPOCHS:
        parts = [sampler.rows(epoch, start, stop) for start, stop in pairwise(cuts)]
        assert np.array_equal(np.concatenate(parts), epoch_of(sampler, epoch))


@every_sampler
def test_an_epoch_is_the_same_whenever_and_whoever_asks(name: str) -> None:
    first, second = build(name, seed=5), build(name, seed=5)
    early = epoch_of(first, 3)
    epoch_of(second, 9)  # another process may come from another epoch
    assert np.array_equal(epoch_of(second, 3), early)
    assert np.array_equal(epoch_of(first, 3), early)


@every_sampler
def test_labels_are_left_alone(name: str) -> None:
    labels = LABELS.copy()
    labels.flags.writeable = False
    sampler = SAMPLERS.build(name, {}, labels=labels, seed=0)
    epoch_of(sampler, 1)


@every_sampler
def test_groups_fit_into_an_epoch(name: str) -> None:
    sampler = build(name)
    assert sampler.rows_per_group >= 1
    assert len(sampler) % sampler.rows_per_group == 0


@every_sampler
def test_batches_after_a_restart_and_of_two_processes_are_those_of_one_run(name: str) -> None:
    faces = SyntheticFaces(identities=4, per_identity=8, size=16)

    def indices(start: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
        sampler = SAMPLERS.build(name, {}, labels=faces.labels, seed=2)
        loader = Loader(faces, sampler, batch_size=8, rank=rank, world_size=world_size, workers=1)
        return [batch.index.tolist() for batch in loader.batches(1, start)]

    whole = indices(0)
    assert len(whole) > 1
    assert indices(1) == whole[1:]
    shares = zip(indices(0, 0, 2), indices(0, 1, 2), strict=True)
    assert [left + right for left, right in shares] == whole
