"""Paired tests: worked by hand, blind where nothing differs, and refusing what cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.statistics.paired import (
    check_same_trials,
    mcnemar,
    paired_bootstrap,
    right_pairs,
    right_probes,
)

PEOPLE, FAR = 40, 0.05


def verification(noise: float, seed: int = 0, people: int = PEOPLE) -> Report:
    """A report on all pairs of people with two images each; ``seed`` is that of the model, the list is fixed."""
    person = np.repeat(np.arange(people), 2)
    rows, columns = np.triu_indices(len(person), 1)
    left, right = person[rows].astype(np.int32), person[columns].astype(np.int32)
    same = left == right
    score = same + noise * np.random.default_rng(seed).normal(size=len(same))
    score = score.astype(np.float32)
    (point,) = metrics.tar_at_far(metrics.roc(score, same), [FAR])
    numbers = (
        Metric(f"TAR@FAR={FAR}", point.tar),
        Metric("accuracy", float(np.mean((score >= 0.5) == same))),
        Metric("threshold", 0.5, unit="score"),
    )
    return Report("own", numbers, trials={"score": score, "same": same, "left": left, "right": right})


def identification(rank: list[int]) -> Report:
    ranks = np.array(rank, np.int32)
    value = float(np.mean(ranks[ranks > 0] == 1))
    trials = {"person": np.arange(len(ranks), dtype=np.int32), "rank": ranks}
    return Report("TinyFace", (Metric("rank-1", value),), trials=trials)


def decisions(only_first: int, only_second: int, both: int = 10) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, False, True], [only_first, only_second, both])
    return first, np.repeat([False, True, True], [only_first, only_second, both])


def test_mcnemar_by_hand() -> None:
    """Of 6 discordant trials 1 speaks for the second model: p = 2 (1 + 6) / 2^6."""
    test = mcnemar(*decisions(5, 1))
    assert (test.only_first, test.only_second, test.trials, test.method) == (5, 1, 16, "exact")
    assert test.p == pytest.approx(14 / 64)
    assert test.difference == 4 / 16


def test_mid_p_by_hand() -> None:
    """Of 26 discordant trials 2 speak for the first model: p = (2 (1 + 26) + C(26, 2)) / 2^26."""
    test = mcnemar(*decisions(2, 24))
    assert test.method == "mid-p"
    assert test.p == pytest.approx((2 * 27 + 325) / 2**26)


@pytest.mark.parametrize("discordant", [0, 12, 13, 13000])
def test_no_difference_has_p_one(discordant: int) -> None:
    assert mcnemar(*decisions(discordant, discordant)).p == pytest.approx(1.0)


def test_mid_p_holds_its_level() -> None:
    random = np.random.default_rng(0)
    p = [mcnemar(*decisions(ones, 60 - ones)).p for ones in random.binomial(60, 0.5, size=2000)]
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.065


@pytest.mark.parametrize(("first", "second"), [(np.ones(3, bool), np.ones(4, bool)), (np.ones(0, bool),) * 2])
def test_mcnemar_refuses_what_is_not_paired(first: np.ndarray, second: np.ndarray) -> None:
    with pytest.raises(DataError, match="needs two vectors of one length"):
        mcnemar(first, second)


def test_decisions_are_at_the_models_own_threshold() -> None:
    report = verification(0.3)
    score, same = report.trials["score"], report.trials["same"]
    np.testing.assert_array_equal(right_pairs(report), (score >= 0.5) == same)
    best = right_pairs(replace(report, metrics=report.metrics[:1])).mean()
    assert best == max(np.mean((score >= one) == same) for one in np.append(score, np.inf))


def test_probes_without_a_mate_decide_nothing() -> None:
    report = identification([1, 0, 3, 1])
    assert right_probes(report).tolist() == [True, False, True]
    assert right_probes(report, 3).tolist() == [True, True, True]


def test_a_model_does_not_differ_from_itself() -> None:
    report = verification(0.5)
    test = paired_bootstrap(report, report, f"TAR@FAR={FAR}", draws=50)
    assert (test.difference, test.interval, test.p) == (0.0, (0.0, 0.0), 1.0)


def test_a_much_better_model_is_seen() -> None:
    good, bad = verification(0.25), verification(1.0)
    test = paired_bootstrap(good, bad, f"TAR@FAR={FAR}", draws=100)
    assert test.difference == good.headline.value - bad.headline.value  # type: ignore[operator]
    assert test.interval is not None
    assert 0.0 < test.interval[0] < test.difference < test.interval[1]
    assert test.p == pytest.approx(2 / 101)
    turned = paired_bootstrap(bad, good, f"TAR@FAR={FAR}", draws=100)
    assert turned.interval == pytest.approx((-test.interval[1], -test.interval[0]))


def test_pairing_narrows_the_interval() -> None:
    """Two models that err on the same people: the difference is known better than either rate."""
    first = verification(0.6)
    near = first.trials["score"] + np.float32(0.01) * np.random.default_rng(1).normal(size=len(first.trials["score"]))
    second = replace(first, trials={**first.trials, "score": near.astype(np.float32)})
    other = verification(0.6, seed=9)
    close, far = (paired_bootstrap(first, one, f"TAR@FAR={FAR}", draws=100).interval for one in (second, other))
    assert close is not None
    assert far is not None
    assert close[1] - close[0] < 0.5 * (far[1] - far[0])


def test_paired_p_values_hold_their_level() -> None:
    """Models of one quality: p <= 0.1 in at most about a tenth of the comparisons; the bootstrap is conservative."""
    p = [
        paired_bootstrap(verification(0.5, 2 * n), verification(0.5, 2 * n + 1), f"TAR@FAR={FAR}", draws=60).p
        for n in range(60)
    ]
    assert np.mean(np.array(p) <= 0.1) <= 0.2
    assert min(p) < 0.5


def test_trials_that_do_not_match_are_refused() -> None:
    report = verification(0.3)
    trials = report.trials
    shorter = replace(report, trials={name: values[1:] for name, values in trials.items()})
    with pytest.raises(
        DataError, match=r"tested on 3,160 trials, the other on 3,159; test both models on the same list"
    ):
        check_same_trials(report, shorter)
    moved = replace(report, trials={**trials, "left": trials["left"] + 50, "right": trials["right"] + 50})
    with pytest.raises(DataError, match=r"the trials differ in 'left', first at trial 0 \(from 0\); test both"):
        check_same_trials(report, moved)
    with pytest.raises(DataError, match="one report holds pairs and the other probes"):
        check_same_trials(report, identification([1, 2]))
    with pytest.raises(DataError, match="own: the report holds no trials; test the model again"):
        check_same_trials(report, replace(report, trials={}))
    with pytest.raises(DataError, match="other probes have a mate in the gallery"):
        check_same_trials(identification([1, 0]), identification([0, 1]))


def test_metrics_that_cannot_be_drawn_are_refused() -> None:
    report = replace(verification(0.3), metrics=(*verification(0.3).metrics, Metric("luck", 0.5)))
    with pytest.raises(DataError, match="luck cannot be drawn from the report's trials"):
        paired_bootstrap(report, report, "luck", draws=10)
    with pytest.raises(DataError, match="AUC cannot be drawn"):
        paired_bootstrap(report, report, "AUC", draws=10)  # the report does not measure it


def test_accuracies_are_not_bootstrapped_in_pairs() -> None:
    report = Report("LFW", (Metric("accuracy", 0.9),), trials=TRIALS_OF_ACCURACY)
    with pytest.raises(DataError, match="use McNemar's test"):
        paired_bootstrap(report, report, "accuracy", draws=10)


TRIALS_OF_ACCURACY = {
    "score": np.array([0.9, 0.1], np.float32),
    "same": np.array([True, False]),
    "left": np.array([0, 0], np.int32),
    "right": np.array([0, 1], np.int32),
}
