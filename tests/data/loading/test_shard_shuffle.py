"""The shuffle that keeps runs together: a shuffle buffer, exactly, from any position."""

import numpy as np
import pytest

from facelab.data.base import SAMPLERS
from facelab.data.loading.keyed_random import permute, uniform
from facelab.data.loading.shard_shuffle import ShardShuffle
from facelab.errors import ConfigError

SIZE, BUFFER = 5000, 400
RUNS = np.flatnonzero(np.random.default_rng(0).random(SIZE) < 0.02)
RUNS = np.unique([0, *RUNS])


def sampler(buffer: int = BUFFER, seed: int = 3) -> ShardShuffle:
    return ShardShuffle(np.zeros(SIZE, np.int64), buffer, seed, RUNS)


def by_the_book(epoch: int) -> list[int]:
    """All images of an epoch by the moment at which they leave the buffer."""
    lengths = np.diff(RUNS, append=SIZE)
    moments, entered = np.zeros(SIZE), 0
    for run in permute(np.arange(len(RUNS)), len(RUNS), 3, epoch):
        images = np.arange(RUNS[run], RUNS[run] + lengths[run])
        moments[images] = entered + np.arange(lengths[run]) + BUFFER * uniform(3, epoch, images)
        entered += lengths[run]
    return np.argsort(moments, kind="stable").tolist()


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_order_is_that_of_a_buffer_from_any_position(epoch: int) -> None:
    expected = by_the_book(epoch)
    assert sorted(expected) == list(range(SIZE))
    assert sampler().rows(epoch, 0, SIZE).tolist() == expected
    shuffle = sampler()
    for start in np.random.default_rng(epoch).integers(0, SIZE - 50, 40).tolist():
        assert shuffle.rows(epoch, start, start + 50).tolist() == expected[start : start + 50]


@pytest.mark.parametrize("buffer", [3, SIZE, 50 * SIZE])
def test_every_image_comes_once_whatever_the_buffer(buffer: int) -> None:
    rows = sampler(buffer).rows(2, 0, SIZE)
    assert np.array_equal(np.sort(rows), np.arange(SIZE))


def test_images_of_a_run_stay_near_each_other_and_come_among_others() -> None:
    rows = sampler().rows(0, 0, SIZE)
    run = np.searchsorted(RUNS, rows, "right") - 1
    longest = int(np.diff(RUNS, append=SIZE).max())
    for number in range(len(RUNS)):
        places = np.flatnonzero(run == number)
        assert places.max() - places.min() <= BUFFER + longest
    typical = [len(set(run[start : start + 50].tolist())) for start in range(500, 4500, 50)]
    assert np.median(typical) >= 6  # some 400 / 50 runs are in the buffer


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(sampler(seed=seed).rows(epoch, 0, SIZE)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4


def test_a_source_without_runs_has_runs_of_neighbours() -> None:
    rows = SAMPLERS.build("ShardShuffle", {"buffer": 256}, labels=np.zeros(2000, np.int64), seed=0).rows(0, 0, 2000)
    assert np.array_equal(np.sort(rows), np.arange(2000))
    assert len(set((rows[:128] // 256).tolist())) <= 2
    with pytest.raises(ConfigError, match="ShardShuffle buffer is 0"):
        sampler(buffer=0)
