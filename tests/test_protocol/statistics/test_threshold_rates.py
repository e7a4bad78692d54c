import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.statistics.threshold_rates import Errors, clopper_pearson, of_all_pairs, of_pairs


def test_clopper_and_pearson_by_hand() -> None:
    # No error in n: the upper end p solves (1 - p)^n = 0.025; all errors: the mirror image.
    low, high = clopper_pearson(0, 100)
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert clopper_pearson(100, 100) == (pytest.approx(0.025 ** (1 / 100)), 1.0)
    assert clopper_pearson(10, 10_000) == (pytest.approx(4.796e-4, rel=1e-3), pytest.approx(1.8383e-3, rel=1e-3))
    with pytest.raises(DataError, match="3 errors in 2 trials"):
        clopper_pearson(3, 2)
    with pytest.raises(ConfigError, match="level"):
        clopper_pearson(1, 2, 1.0)


def test_pairs_of_all_images_are_counted_as_if_they_were_listed() -> None:
    images = np.array([1, 3, 2])
    person = np.repeat([1, 2, 3], images)
    left, right = np.triu_indices(6, 1)
    apart = person[left] != person[right]
    weight = np.vstack([np.ones(5), np.random.default_rng(0).integers(0, 4, (3, 5))])
    listed = of_pairs(person[left][apart], person[right][apart])(weight)
    np.testing.assert_allclose(of_all_pairs(images)(weight), listed)


def test_one_hard_person_makes_the_interval_wide_and_unknown_people_do_not() -> None:
    # 2,000 pairs of 100 people in a ring of neighbours; either one person owns all 20 errors, or each has its own.
    first = np.tile(np.arange(1, 101), 20)
    second = first % 100 + 1
    one = Errors(np.full(20, 7), np.full(20, 8), 2000, of_pairs(first, second), 100)
    spread = Errors(np.arange(1, 21), np.arange(2, 22), 2000, of_pairs(first, second), 100)
    unknown = Errors(np.full(20, 7), np.full(20, 8), 2000, of_pairs(first, second), 0)
    assert one.rate == spread.rate == 0.01
    width = {name: np.subtract(*errors.interval()[::-1]) for name, errors in (("one", one), ("spread", spread))}
    assert width["one"] > 2 * width["spread"]
    assert unknown.interval() == clopper_pearson(20, 2000)
    assert one.interval(seed=3) == one.interval(seed=3)
    nobody = np.zeros(0, np.int64)
    assert Errors(nobody, nobody, 2000, of_pairs(first, second), 100).interval() == clopper_pearson(0, 2000)
