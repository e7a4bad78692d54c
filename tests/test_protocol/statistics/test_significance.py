"""Which models are marked as no worse than the best."""

from dataclasses import replace

import numpy as np
import pytest

from facelab.errors import ConfigError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.statistics.confidence import with_intervals
from facelab.test_protocol.statistics.significance import direction, holm, marks, within_noise


def pairs_report(errors: int, seed: int, headline: str = "accuracy", pairs: int = 400) -> Report:
    """Pairs of two images each, of which a model gets some wrong."""
    same = np.arange(pairs) % 2 == 0
    left = np.arange(pairs, dtype=np.int32)
    right = np.where(same, left, left + pairs).astype(np.int32)
    wrong = np.zeros(pairs, bool)
    wrong[np.random.default_rng(seed).choice(pairs, errors, replace=False)] = True
    score = (np.where(same ^ wrong, 0.8, 0.2) + 1e-4 * np.arange(pairs)).astype(np.float32)
    curve = metrics.roc(score, same)
    (point,) = metrics.tar_at_far(curve, [0.1])
    values = {"accuracy": 1 - errors / pairs, "TAR@FAR=1e-1": point.tar, "EER": metrics.eer(curve)}
    names = sorted(values, key=lambda name: name != headline)
    numbers = (
        *(Metric(name, values[name], better="low" if name == "EER" else "high") for name in names),
        Metric("threshold", 0.5, unit="score"),
    )
    return Report("LFW", numbers, trials={"score": score, "same": same, "left": left, "right": right})


def probes_report(misses: int, seed: int, probes: int = 300) -> Report:
    rank = np.ones(probes, np.int32)
    rank[np.random.default_rng(seed).choice(probes, misses, replace=False)] = 7
    trials = {"person": np.arange(probes, dtype=np.int32) // 3, "rank": rank}
    return Report("TinyFace", (Metric("rank-1", 1 - misses / probes, better="high"),), trials=trials)


def test_holm_by_hand() -> None:
    corrected = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.9})
    assert corrected == pytest.approx({"b": 0.04, "c": 0.09, "a": 0.09, "d": 0.9})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("headline", ["accuracy", "TAR@FAR=1e-1", "EER"])
def test_close_models_are_within_noise_and_bad_ones_are_not(headline: str) -> None:
    reports = {
        "near": pairs_report(12, 1, headline),
        "best": pairs_report(4, 2, headline),
        "bad": pairs_report(120, 3, headline),
    }
    assert within_noise(reports, draws=100) == {"near"}
    found = marks(reports, draws=100)
    assert {model: mark.verdict for model, mark in found.items()} == {
        "near": "within noise",
        "best": "best",
        "bad": "worse",
    }
    assert found["bad"].p is not None
    assert found["bad"].p <= 0.05
    assert ("McNemar" in found["bad"].note) == (headline == "accuracy")


def reduced(sharp: Report, low: Report) -> Report:
    """A report with the accuracy of another one at 16 pixels."""
    metric = replace(low.headline, name="accuracy@16px")
    return replace(sharp, metrics=(*sharp.metrics, metric), trials={**sharp.trials, "score@16px": low.trials["score"]})


def test_accuracies_at_other_resolutions_are_compared_on_their_own_scores() -> None:
    good, near, bad = (pairs_report(errors, seed, "accuracy") for errors, seed in ((4, 1), (12, 2), (120, 3)))
    reports = {"a": reduced(bad, good), "b": reduced(good, near), "c": reduced(good, bad), "d": bad}
    found = marks(reports, "accuracy@16px")
    assert {model: mark.verdict for model, mark in found.items()} == {
        "a": "best", "b": "within noise", "c": "worse", "d": "untested",
    }  # fmt: skip
    assert marks(reports, "accuracy")["a"].verdict == "worse"
    low, high = with_intervals(reports["c"], draws=50).metrics[-1].interval or (0, 0)
    assert low < bad.headline.value < high < good.headline.value  # type: ignore[operator]
    unknown = replace(bad, metrics=reports["c"].metrics)
    assert "no trials of '@16px'" in marks({**reports, "d": unknown}, "accuracy@16px")["d"].note


def covered(clean: Report, nose: Report, mouth: Report) -> Report:
    """A report with the numbers of two others with covered regions, and their mean."""
    parts = {"@nose": nose, "@mouth": mouth}
    metrics = [replace(one.headline, name=f"accuracy{part}") for part, one in parts.items()]
    mean = np.mean([metric.value for metric in metrics])  # type: ignore[misc]
    metrics.append(replace(clean.headline, name="accuracy@occluded", value=float(mean)))
    scores = {f"score{part}": one.trials["score"] for part, one in parts.items()}
    options = {"occlude": {"regions": ["nose", "mouth"]}}
    return replace(clean, metrics=(*clean.metrics, *metrics), trials={**clean.trials, **scores}, options=options)


def test_means_over_regions_are_compared_on_the_same_people_in_all_of_them() -> None:
    good, near, bad = (pairs_report(errors, seed, "accuracy") for errors, seed in ((4, 1), (12, 2), (120, 3)))
    reports = {"a": covered(bad, good, near), "b": covered(good, near, near), "c": covered(good, good, bad), "d": bad}
    found = marks(reports, "accuracy@occluded", draws=200)
    verdicts = {"a": "best", "b": "within noise", "c": "worse", "d": "untested"}
    assert {model: mark.verdict for model, mark in found.items()} == verdicts
    assert found["b"].note == "paired bootstrap by identity, Holm"
    measured = with_intervals(reports["c"], draws=200).metrics
    low, middle, high = (np.mean(metric.interval or (0, 0)) for metric in (measured[-2], measured[-1], measured[-3]))
    assert middle == pytest.approx((low + high) / 2, abs=0.01)
    assert low < middle < high
    lost = {name: values for name, values in reports["b"].trials.items() if name != "score@nose"}
    assert marks({**reports, "b": replace(reports["b"], trials=lost)}, "accuracy@occluded")["b"].verdict == "untested"


def test_rank_is_compared_by_mcnemar() -> None:
    reports = {"best": probes_report(20, 1), "near": probes_report(24, 2), "bad": probes_report(90, 3)}
    found = marks(reports)
    assert [found[model].verdict for model in reports] == ["best", "within noise", "worse"]
    assert found["near"].note == "McNemar, Holm"


def test_a_rule_that_the_trials_do_not_follow_cannot_be_tested() -> None:
    """A published script ranks by another distance: its numbers say nothing of the ranks in the trials."""
    script = [
        replace(one, metrics=(Metric("rank-1 (script)", value, kind="reference", better="high"), *one.metrics))
        for one, value in ((probes_report(20, 1), 0.5), (probes_report(24, 2), 0.6))
    ]
    found = marks({"a": script[0], "b": script[1]})
    assert found["a"].verdict == "untested"
    assert found["a"].note == "TinyFace: rank-1 (script) is not that of the trials, which follow another rule."
    assert marks({"a": script[0], "b": script[1]}, "rank-1")["b"].verdict == "within noise"


def test_metrics_of_other_trials_cannot_be_tested() -> None:
    numbers = (Metric("accuracy", 0.9, better="high"), Metric("rank-1", 0.9, better="high"))
    reports = {name: replace(pairs_report(40, seed), metrics=numbers) for name, seed in (("a", 1), ("b", 2))}
    assert "they hold no 'rank'" in marks(reports, "rank-1")["b"].note


def test_p_at_the_level_counts_as_worse() -> None:
    """Holm rejects where a corrected p value is at most the level."""
    reports = {"a": pairs_report(10, 1), "b": pairs_report(14, 2)}
    p = marks(reports)["b"].p
    assert p is not None
    assert marks(reports, level=p)["b"].verdict == "worse"
    assert marks(reports, level=p * 0.999)["b"].verdict == "within noise"


def test_a_direction_is_what_all_say_who_say_one() -> None:
    high, low, silent = (Metric("a", 1.0, better=better) for better in ("high", "low", None))
    assert direction([high, silent, high]) == "high"
    assert direction([silent, low]) == "low"
    assert direction([high, low]) is direction([silent]) is direction([]) is None


def test_metric_without_a_direction_is_not_tested() -> None:
    reports = {"a": pairs_report(10, 1), "b": pairs_report(14, 2)}
    found = marks(reports, "threshold")
    assert {mark.verdict for mark in found.values()} == {"untested"}
    assert found["b"].note == "nobody says whether more or less threshold is better"


def test_other_metrics_can_be_asked_for() -> None:
    reports = {"a": pairs_report(10, 1), "b": pairs_report(14, 2)}
    assert marks(reports, "EER", draws=50)["a"].verdict == "best"
    assert marks(reports, "luck")["a"].note == "luck was not measured"


def test_what_cannot_be_tested_is_not_within_noise() -> None:
    best, other = pairs_report(10, 1), pairs_report(11, 2, pairs=396)
    bare = Report("LFW", best.metrics)
    unmeasured = Report("LFW", (Metric("accuracy", None),))
    found = marks({"best": best, "other": other, "unmeasured": unmeasured})
    assert found["other"].verdict == "untested"
    assert "400 trials, the other on 396" in found["other"].note
    assert found["unmeasured"].note == "accuracy was not measured"
    assert within_noise({"best": best, "other": other}) == frozenset()
    assert within_noise({"a": bare, "b": bare}) == frozenset()
    assert within_noise({"only": best}) == frozenset()
    assert within_noise({}) == frozenset()


def test_senseless_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="level is 5"):
        within_noise({"a": pairs_report(10, 1)}, level=5)
