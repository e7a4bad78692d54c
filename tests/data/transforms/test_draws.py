"""Draws: the same for everybody who asks, and nobody's business but their owner's."""

import subprocess
import sys

import numpy as np
import pytest

from facelab.data.loading.keyed_random import uniform
from facelab.data.transforms.draws import _FIRST, Draws, draws_of_batch

STORED = [0.3039228588337788, 0.3273912217850323, 0.7147571372339137]

ROWS = np.arange(100)


def draws(transform: str, rows: np.ndarray = ROWS, step: int = 3) -> Draws:
    return Draws(draws_of_batch(5, 2, step, rows), transform)


def test_the_first_transforms_draw_by_numbers_that_never_change() -> None:
    assert len(_FIRST) == 16
    assert np.array_equal(draws("flip")("chosen"), uniform(5, 2, 3, ROWS, 1))
    assert np.array_equal(draws("erase")("y"), uniform(5, 2, 3, ROWS, 16))


def test_others_draw_by_the_hash_of_their_names_which_no_process_changes() -> None:
    """Stored numbers: a run of today is resumed by the version of tomorrow."""
    code = (
        "import numpy as np; from facelab.data.transforms.draws import *;"
        "print(*Draws(draws_of_batch(5, 2, 3, np.arange(3)), 'occluder')('size'))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [float(word) for word in printed.split()] == draws("occluder")("size")[:3].tolist()
    assert draws("occluder")("size")[:3].tolist() == STORED


def test_names_keys_and_rows_all_matter() -> None:
    found = [
        draws("a")("x"), draws("b")("x"), draws("a")("y"), draws("x")("a"), draws("a", ROWS + 100)("x"),
        draws("a", step=4)("x"), draws("flip")("x"), draws("crop")("x"),
    ]  # fmt: skip
    assert all(not np.intersect1d(found[i], found[j]).size for i in range(len(found)) for j in range(i))
    assert all(0 <= one.min() < 0.1 and 0.9 < one.max() < 1 for one in found)


def test_draws_do_not_depend_on_each_other_or_on_the_division_of_the_batch() -> None:
    first, second = draws("a"), draws("a")
    second("y"), second("x"), second("z", 7)
    assert np.array_equal(first("x"), second("x"))
    parts = [draws("a", ROWS[:30])("x"), draws("a", ROWS[30:])("x")]
    assert np.array_equal(np.concatenate(parts), first("x"))


def test_an_image_may_draw_many_numbers() -> None:
    many = draws("a")("noise", 50)
    assert many.shape == (100, 50)
    assert len(np.unique(many)) == many.size
    assert np.array_equal(draws("a")("noise", 20), many[:, :20])


@pytest.mark.parametrize(("probability", "fewest", "most"), [(0.0, 0, 0), (0.3, 15, 45), (1.0, 100, 100)])
def test_chosen(probability: float, fewest: int, most: int) -> None:
    assert fewest <= len(draws("a").chosen(probability)) <= most
