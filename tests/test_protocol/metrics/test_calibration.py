import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from facelab.errors import DataError
from facelab.test_protocol.metrics.calibration import cllr, fit_logistic, isotonic, min_cllr

PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=40)


def drawn(count: int = 3000, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian scores of one deviation, whose true log-likelihood ratio is a line: slope 12.5, offset -3.75."""
    generator = np.random.default_rng(0)
    same = generator.random(count) < share
    return generator.normal(np.where(same, 0.55, 0.05), 0.2), same


def test_cllr_of_three_pairs_by_hand() -> None:
    # Same pairs with likelihood ratios 3 and 1, one different pair with 1/3.
    same = (math.log2(1 + 1 / 3) + math.log2(2)) / 2
    assert cllr([math.log(3), 0.0, -math.log(3)], [True, True, False]) == pytest.approx(
        (same + math.log2(1 + 1 / 3)) / 2
    )
    assert cllr([0.0, 0.0], [True, False]) == pytest.approx(1.0)
    assert cllr([np.inf, -np.inf], [True, False]) == 0.0
    assert cllr([-np.inf, -1.0], [True, False]) == np.inf


def test_the_line_of_gaussian_scores_is_found_whatever_the_share_of_same_pairs() -> None:
    for share in (0.5, 0.05):
        scores, same = drawn(100_000, share)
        fitted = fit_logistic(scores, same)
        assert fitted.slope == pytest.approx(12.5, rel=0.04)
        assert fitted.offset == pytest.approx(-3.75, rel=0.04)


def test_no_other_line_costs_less() -> None:
    scores, same = drawn()
    fitted = fit_logistic(scores, same)
    best = minimize(lambda line: cllr(line[0] * scores + line[1], same), [1.0, 0.0], method="Nelder-Mead").fun
    assert cllr(fitted.llr(scores), same) == pytest.approx(best, abs=1e-4)  # Platt's targets are a little off 0 and 1
    assert min_cllr(scores, same) < best < 1


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_kinds_that_do_not_overlap_have_a_finite_line(scale: float) -> None:
    scores = scale * np.array([0.1, 0.2, 0.3, 0.9])
    fitted = fit_logistic(scores, [False, False, False, True])
    assert 0 < fitted.slope < np.inf
    assert cllr(fitted.llr(scores), [False, False, False, True]) < 0.5
    assert min_cllr(scores, [False, False, False, True]) == 0.0


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_pooled_rates_are_those_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    from sklearn.isotonic import IsotonicRegression

    scores, same = np.array([float(score) for score, _ in pairs]), np.array([kind for _, kind in pairs])
    expected = IsotonicRegression().fit(scores, same).predict(scores)
    np.testing.assert_allclose(isotonic(scores, same), expected, atol=1e-12)


def test_a_long_cascade_is_pooled() -> None:
    # Blocks rise all the way, and the last one, which is low, swallows all of them.
    count = 30
    scores, same = [], []
    for number in range(1, count):
        scores += [number] * count
        same += [True] * number + [False] * (count - number)
    rates = isotonic([*scores, *[count] * 20_000], [*same, *[False] * 20_000])
    assert np.ptp(rates) < 1e-12


def test_any_rising_map_costs_at_least_min_cllr_and_keeps_it() -> None:
    scores, same = drawn(500)
    least = min_cllr(scores, same)
    assert min_cllr(np.tanh(3 * scores), same) == pytest.approx(least)
    assert min_cllr(np.where(scores == scores.max(), np.inf, scores), same) == pytest.approx(least)
    assert all(cllr(slope * scores + offset, same) >= least for slope in (1, 10, 30) for offset in (-9, -3, 0))


@pytest.mark.parametrize(
    ("scores", "same", "sentence"),
    [
        ([0.1, 0.2], [True, True], "needs same and different pairs; all 2 are of one kind"),
        ([0.1, np.nan], [True, False], "the score of pair 1 .from 0. is not a number"),
        ([0.1, np.inf], [False, True], "the score of pair 1 .from 0. is not finite"),
        ([0.3, 0.3], [False, True], "all 2 scores are 0.3, so nothing can be learned"),
        ([0.3, 0.1], [False, True], "same pairs do not score higher than different pairs"),
        ([0.3], [False, True], "must be vectors of one length"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(scores: list[float], same: list[bool], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        fit_logistic(scores, same)
