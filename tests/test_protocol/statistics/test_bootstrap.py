"""The bootstrap by identity: equal to brute force, and intervals that hold what they promise."""

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.statistics import bootstrap
from facelab.test_protocol.statistics.bootstrap import ResampledRoc, draw_rank_rates, percentile_interval
from facelab.test_protocol.statistics.resampling import Units, multiplicities, units_of_pairs, units_of_probes

Trials = dict[str, np.ndarray]
FARS = (0.005, 0.03, 0.2, 1.0)


def all_pairs(people: int, seed: int, digits: int = 9, images: int = 2) -> Trials:
    """Every pair of the images of some people, whose scores owe something to both people."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(people) * 7 + 3, images)
    rows, columns = np.triu_indices(len(person), 1)
    left, right = person[rows], person[columns]
    same = left == right
    ease = random.normal(size=people * 7 + 3)
    score = 1.5 * same + 0.7 * (ease[left] + ease[right]) + random.normal(size=len(same))
    return {
        "score": score.round(digits).astype(np.float32),
        "same": same,
        "left": left.astype(np.int32),
        "right": right.astype(np.int32),
    }


def brute_force(trials: Trials, times: np.ndarray) -> list[float]:
    """The statistics of the pairs, each repeated as often as it counts."""
    curve = metrics.roc(np.repeat(trials["score"], times), np.repeat(trials["same"], times))
    tars = [point.tar for point in metrics.tar_at_far(curve, FARS)]
    return [*tars, metrics.auc(curve), metrics.eer(curve)]


@pytest.mark.parametrize("digits", [9, 0])  # 0: most scores are tied
def test_draws_equal_brute_force(digits: int) -> None:
    trials = all_pairs(12, seed=1, digits=digits)
    units = units_of_pairs(trials)
    statistics = [*map(bootstrap.tar_at_far, FARS), bootstrap.auc, bootstrap.eer]
    draws = ResampledRoc(trials["score"], trials["same"], units).draw(statistics, 70, seed=5)
    people = np.unique(trials["left"])
    weights = np.concatenate(list(multiplicities(len(people), 70, 5)), axis=1)[1:].astype(int)
    for draw in range(70):
        weight = dict(zip(people, weights[:, draw], strict=True))
        pairs = zip(trials["left"], trials["right"], trials["same"], strict=True)
        times = np.array([weight[a] if same else weight[a] * weight[b] for a, b, same in pairs])
        np.testing.assert_allclose(draws[:, draw], brute_force(trials, times), rtol=0, atol=1e-12)


def test_draws_that_leave_one_kind_of_pairs_are_nan_for_every_statistic() -> None:
    """Of two people, about half of the draws hold but one of them: no different pair is left."""
    trials = all_pairs(2, seed=3, images=3)
    statistics = [*map(bootstrap.tar_at_far, FARS), bootstrap.auc, bootstrap.eer, bootstrap.accuracy_at(0.5, 0.5)]
    draws = ResampledRoc(trials["score"], trials["same"], units_of_pairs(trials), [0.5]).draw(statistics, 60, seed=0)
    weights = np.concatenate(list(multiplicities(2, 60, 0)), axis=1)[1:]
    alone = (weights == 0).any(axis=0)
    assert 0 < alone.sum() < 60
    for row in draws:
        np.testing.assert_array_equal(np.isnan(row), alone)


def test_draws_of_unknown_people_equal_brute_force() -> None:
    trials = all_pairs(8, seed=2)
    trials["left"] = np.full_like(trials["left"], -1)
    units = units_of_pairs(trials)
    assert units.describe() == "by pair, people unknown"
    draws = ResampledRoc(trials["score"], trials["same"], units).draw([bootstrap.auc, bootstrap.eer], 9, seed=3)
    weights = np.concatenate(list(multiplicities(len(trials["same"]), 9, 3)), axis=1)[1:].astype(int)
    for draw in range(9):
        expected = brute_force(trials, weights[:, draw])[-2:]
        np.testing.assert_allclose(draws[:, draw], expected, rtol=0, atol=1e-12)


def test_many_small_blocks_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = all_pairs(15, seed=3)
    sample = ResampledRoc(trials["score"], trials["same"], units_of_pairs(trials))
    expected = sample.draw([bootstrap.auc], 10, seed=0)
    monkeypatch.setattr(bootstrap, "BLOCK_GROUPS", 3)
    np.testing.assert_allclose(sample.draw([bootstrap.auc], 10, seed=0), expected, rtol=1e-14)


def test_few_kept_scores_are_close(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = all_pairs(30, seed=4, images=4)
    units, statistics = units_of_pairs(trials), [bootstrap.tar_at_far(0.01), bootstrap.eer]
    exact = ResampledRoc(trials["score"], trials["same"], units).draw(statistics, 40, seed=0)
    monkeypatch.setattr(bootstrap, "MAX_SCORES", 60)
    binned = ResampledRoc(trials["score"], trials["same"], units).draw(statistics, 40, seed=0)
    assert 0.0 < np.abs(binned - exact).max() < 0.06  # 180 same pairs, every third is kept; a person may count 4 times


def test_accuracy_at_a_threshold_by_hand() -> None:
    units = Units(np.array([1, 1, 1, 2]), np.array([0, 2, 2, 0]), 2, "people")
    score, same = np.array([0.9, 0.5, 0.1, 0.3]), np.array([True, False, False, True])
    sample = ResampledRoc(score, same, units, [0.4])
    curves = sample.curves(np.array([[1.0, 1.0], [1.0, 3.0], [1.0, 1.0]]))
    # accepted: the same pair of person 1, not that of person 2; one of two different pairs
    np.testing.assert_allclose(bootstrap.accuracy_at(0.4, 0.5)(curves), [0.5, (3 / 4 + 1 / 2) / 2])


def test_rank_rates_by_hand() -> None:
    units = Units(np.array([1, 1, 2, 2]), np.zeros(4, np.int64), 2, "people")
    draws = draw_rank_rates(np.array([1, 4, 2, 0]), [1, 2], units, 50, seed=1)
    weights = next(multiplicities(2, 50, 1))[1:]
    mates = 2 * weights[0] + weights[1]
    np.testing.assert_allclose(draws, [weights[0] / mates, (weights[0] + weights[1]) / mates])


def test_rank_rates_by_probe_where_people_are_unknown() -> None:
    units = units_of_probes({"person": np.array([3, -1, 3]), "rank": np.array([1, 2, 1])})
    assert units.describe() == "by probe, people unknown"
    draws = draw_rank_rates(np.array([1, 2, 1]), [1], units, 30, seed=1)
    weights = next(multiplicities(3, 30, 1))[1:]
    np.testing.assert_allclose(draws[0], (weights[0] + weights[2]) / 3)


def test_repeating_is_bit_equal_and_seeds_differ() -> None:
    trials = all_pairs(10, seed=5)
    sample = ResampledRoc(trials["score"], trials["same"], units_of_pairs(trials))
    first, again, other = (sample.draw([bootstrap.auc], 100, seed=seed) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


def test_multiplicities_of_large_counts_come_in_narrow_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.concatenate(list(multiplicities(50, 10, 0)), axis=1)
    monkeypatch.setattr("facelab.test_protocol.statistics.resampling.BLOCK_NUMBERS", 120)
    blocks = list(multiplicities(50, 10, 0))
    assert [block.shape for block in blocks] == [(51, 2)] * 5
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), expected)
    assert (expected[0] == 1).all()
    assert (expected[1:].sum(axis=0) == 50).all()


def far_at_threshold(curves: bootstrap.Curves) -> np.ndarray:
    return np.asarray(curves.far[np.argmax(curves.threshold <= 1.5)])


def test_intervals_cover_the_truth() -> None:
    """False accept rate at a fixed threshold, in scores that owe half of their variance to the two people."""
    from scipy.stats import norm

    truth = norm.sf(1.5 / np.sqrt(2 * 0.7**2 + 1.0))
    inside = 0
    for seed in range(100):
        trials = all_pairs(40, seed=seed)
        sample = ResampledRoc(trials["score"], trials["same"], units_of_pairs(trials), [1.5])
        interval = percentile_interval(sample.draw([far_at_threshold], 100, seed)[0], 0.9)
        assert interval is not None
        inside += interval[0] <= truth <= interval[1]
    assert 80 <= inside <= 98  # 90 are promised; three standard errors are 9


def test_by_identity_is_wider_than_by_pair_where_people_matter() -> None:
    trials = all_pairs(40, seed=7)
    unknown = {**trials, "left": np.full_like(trials["left"], -1)}
    widths = []
    for one in (trials, unknown):
        sample = ResampledRoc(one["score"], one["same"], units_of_pairs(one), [1.5])
        low, high = percentile_interval(sample.draw([far_at_threshold], 200, seed=0)[0], 0.95) or (0.0, 0.0)
        widths.append(high - low)
    assert widths[0] > 2.5 * widths[1] > 0.0


def test_draws_that_leave_nothing_are_not_counted() -> None:
    units = Units(np.array([1, 1, 1]), np.array([0, 2, 3]), 3, "people")
    sample = ResampledRoc(np.array([0.5, 0.1, 0.2]), np.array([True, False, False]), units)
    draws = sample.draw([bootstrap.auc], 200, seed=0)[0]
    assert 0 < np.isnan(draws).sum() < 100
    assert percentile_interval(draws, 0.95) == (1.0, 1.0)
    assert percentile_interval(np.array([np.nan, 1.0]), 0.95) is None


def test_percentile_interval_by_hand() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


@pytest.mark.parametrize(
    ("same", "right", "said"),
    [
        (True, 2, r"trial 1 \(from 0\) is a same pair of two people, 1 and 2"),
        (False, 1, "a different pair of one person"),
    ],
)
def test_contradicting_trials_are_refused(same: bool, right: int, said: str) -> None:
    trials = {"same": np.array([True, same]), "left": np.array([1, 1]), "right": np.array([1, right])}
    with pytest.raises(DataError, match=said):
        units_of_pairs(trials)


def test_senseless_numbers_are_refused() -> None:
    trials = all_pairs(4, seed=0)
    units = units_of_pairs(trials)
    with pytest.raises(ConfigError, match="needs at least 1 draw, got 0"):
        ResampledRoc(trials["score"], trials["same"], units).draw([bootstrap.auc], 0, seed=0)
    with pytest.raises(ConfigError, match="needs at least 1 draw, got -3"):
        draw_rank_rates(np.array([1]), [1], Units(np.array([1]), np.array([0]), 1, "people"), -3, seed=0)
    with pytest.raises(ConfigError, match="level is 95"):
        percentile_interval(np.arange(3.0), 95)
    with pytest.raises(ConfigError, match="a target FAR is 0"):
        bootstrap.tar_at_far(0)
