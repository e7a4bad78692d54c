"""Keyed random numbers: one to one, even, and independent of how many are asked for at once."""

from collections import Counter

import numpy as np
import pytest

from facelab.data.loading.keyed_random import mix, permute, uniform


def test_mix_is_splitmix64() -> None:
    # First outputs of SplitMix64 seeded with 0 and with 1234567, as its authors publish them.
    assert mix(0).tolist() == [0xE220A8397B1DCDAF]
    assert mix(1234567).tolist() == [6457827717110365317]


def test_mix_of_arrays_is_mix_of_each() -> None:
    rows, draws = np.arange(5)[:, None], np.arange(3)
    together = mix(7, rows, draws)
    assert together.shape == (5, 3)
    assert together[4, 2] == mix(7, 4, 2)[0]
    assert len(np.unique(together)) == 15


def test_negative_keys_count_modulo_two_to_the_64() -> None:
    assert mix(-1) == mix(2**64 - 1) == mix(np.array([-1]))


def test_uniform_is_even_and_below_one() -> None:
    values = uniform(3, np.arange(100_000))
    assert 0 <= values.min() < values.max() < 1
    counts = np.histogram(values, bins=100, range=(0, 1))[0]
    assert chi_square(counts) < 160  # 99 degrees of freedom; 1 in 10000 exceeds 161


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 97, 1000, 4096, 65_537])
def test_permutation_visits_everything_once(size: int) -> None:
    image = permute(np.arange(size), size, 1, 2)
    assert np.array_equal(np.sort(image), np.arange(size))


def test_huge_permutation_costs_nothing() -> None:
    size = 3 * 10**12 + 1
    positions = np.arange(size - 1000, size)
    image = permute(positions, size, 5)
    assert image.min() >= 0
    assert image.max() < size
    assert len(np.unique(image)) == 1000
    assert permute(positions[500:501], size, 5) == image[500]


def test_every_permutation_of_four_is_equally_likely() -> None:
    keys = np.repeat(np.arange(12_000), 4)
    rows = permute(np.tile(np.arange(4), 12_000), 4, 11, keys).reshape(-1, 4)
    counts = Counter(map(tuple, rows.tolist()))
    assert len(counts) == 24
    assert chi_square(np.array(list(counts.values()))) < 53  # 23 degrees of freedom; 1 in 2500 exceeds it


def test_first_place_is_even_over_all_values() -> None:
    first = permute(np.zeros(50_000, np.int64), 50, 13, np.arange(50_000))
    assert chi_square(np.bincount(first, minlength=50)) < 90  # 49 degrees of freedom


def test_neighbours_are_independent() -> None:
    size = 10_007
    image = permute(np.arange(size), size, 17)
    step = np.diff(image) % size
    assert chi_square(np.histogram(step, bins=50, range=(0, size))[0]) < 90
    assert abs(np.corrcoef(np.arange(size), image)[0, 1]) < 0.04  # standard error 0.01


def test_permutations_of_different_lengths_at_once() -> None:
    sizes = np.repeat([1, 2, 3, 10], [1, 2, 3, 10])
    positions = np.concatenate([np.arange(n) for n in (1, 2, 3, 10)])
    image = permute(positions, sizes, 3, sizes)
    assert [sorted(image[sizes == n].tolist()) for n in (1, 2, 3, 10)] == [list(range(n)) for n in (1, 2, 3, 10)]


def chi_square(counts: np.ndarray) -> float:
    expected = counts.mean()
    return float(((counts - expected) ** 2).sum() / expected)


def test_keys_may_be_given_in_two_steps() -> None:
    rows = np.arange(50)
    assert np.array_equal(mix(7, 2, start=mix(3, rows)), mix(3, rows, 7, 2))
    assert np.array_equal(uniform(1, start=mix(3, rows)), uniform(3, rows, 1))
