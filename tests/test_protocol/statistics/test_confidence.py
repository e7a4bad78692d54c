"""Intervals of reports: which metrics get one, around what, and how they are shown."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from facelab.errors import ConfigError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.report.comparison import compare
from facelab.test_protocol.report.metric_text import conditions, format_metric
from facelab.test_protocol.report.table_files import as_csv, as_markdown
from facelab.test_protocol.statistics.confidence import with_intervals
from facelab.test_protocol.statistics.metric_draws import metric_draws


def verification(known: bool = True) -> Report:
    """Pairs of 60 people with two images each."""
    person = np.repeat(np.arange(60), 2)
    rows, columns = np.triu_indices(len(person), 1)
    same = person[rows] == person[columns]
    score = (same + 0.4 * np.random.default_rng(0).normal(size=len(same))).astype(np.float32)
    curve = metrics.roc(score, same)
    (tar,) = metrics.tar_at_far(curve, [0.01])
    numbers = (
        Metric("accuracy", float(np.mean((score >= 0.6) == same)) - 0.001, 0.002),  # over folds: a little lower
        Metric("threshold", 0.6, 0.01, unit="score"),
        Metric("TAR@FAR=1e-2", tar.tar),
        Metric("FNMR@FMR=1e-2", 1.0 - tar.tar, better="low"),
        Metric("TAR@FAR=1e-6", None, note="cannot be measured"),
        Metric("AUC", metrics.auc(curve)),
        Metric("EER", metrics.eer(curve)),
        Metric("same pairs", float(same.sum()), unit="count"),
    )
    left, right = (
        person[side].astype(np.int32) if known else np.full(len(same), -1, np.int32) for side in (rows, columns)
    )
    return Report("LFW", numbers, {"flip": False}, trials={"score": score, "same": same, "left": left, "right": right})


def identification(score: np.ndarray | None = None) -> Report:
    rank = np.array([1, 1, 3, 1, 0, 0, 2, 1, 0, 0], np.int32)
    trials = {"person": np.arange(10, dtype=np.int32) // 2, "rank": rank}
    trials |= {} if score is None else {"score": score.astype(np.float32)}
    numbers = [Metric(f"single rank-{k}", float(np.mean(rank[rank > 0] <= k))) for k in (1, 2)]
    tpir = Metric("single TPIR@FPIR=2.5e-1", 0.5)
    return Report("IJB-S", (*numbers, tpir, Metric("double rank-1", 0.3)), trials=trials)


def intervals(of: Report) -> dict[str, tuple[float, float] | None]:
    return {metric.name: metric.interval for metric in of.metrics}


@pytest.mark.parametrize("draws", [1, 7])
def test_there_are_as_many_draws_as_are_asked_for(draws: int) -> None:
    for report, names in ((verification(), ["accuracy", "AUC", "EER"]), (identification(), ["single rank-1"])):
        found = metric_draws(report, names, draws, seed=0)
        assert {name: len(one) for name, one in found.items()} == dict.fromkeys(names, draws)
        more = metric_draws(report, names, draws + 20, seed=0)
        assert any(len(set(one.tolist())) > 1 for one in more.values())


@pytest.mark.parametrize("known", [True, False])
def test_intervals_lie_around_the_values(known: bool) -> None:
    result = with_intervals(verification(known), draws=200)
    assert {name for name, interval in intervals(result).items() if interval} == {
        "accuracy",
        "TAR@FAR=1e-2",
        "FNMR@FMR=1e-2",
        "AUC",
        "EER",
    }
    accepted, rejected = intervals(result)["TAR@FAR=1e-2"], intervals(result)["FNMR@FMR=1e-2"]
    assert accepted is not None
    assert rejected == pytest.approx((1 - accepted[1], 1 - accepted[0]))
    for metric in result.metrics:
        if metric.interval is not None and metric.value is not None:
            low, high = metric.interval
            assert 0.0 <= low < metric.value < high <= 1.0
    said = result.options["bootstrap"]
    assert said == {"draws": 200, "seed": 0, "level": 0.95, "by": "by identity, 60 people" if known else said["by"]}
    assert result.options["flip"] is False


def test_level_and_seed_count() -> None:
    narrow, wide, other = (
        intervals(with_intervals(verification(), draws=100, seed=seed, level=level))["AUC"] or (0.0, 0.0)
        for seed, level in ((0, 0.5), (0, 0.95), (1, 0.95))
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert other != wide
    assert intervals(with_intervals(verification(), draws=100)) == intervals(with_intervals(verification(), draws=100))


def test_metrics_of_other_trials_get_none() -> None:
    """The trials are those of the headline; ``double rank-1`` and a value that they do not give come from others."""
    found = intervals(with_intervals(identification(), draws=100))
    assert {name for name, interval in found.items() if interval} == {"single rank-1", "single rank-2"}
    given = verification()
    strange = tuple(replace(m, value=0.4) if m.name == "EER" else m for m in given.metrics)
    assert intervals(with_intervals(replace(given, metrics=strange), draws=20))["EER"] is None


def test_open_set_needs_scores() -> None:
    """FPIR 1/4 lets one of four probes without a mate in: from 0.4 on, 3 of 6 mates are first and score as much."""
    score = np.array([0.9, 0.8, 0.95, 0.3, 0.4, 0.2, 0.9, 0.7, 0.1, 0.35])
    low, high = intervals(with_intervals(identification(score), draws=300))["single TPIR@FPIR=2.5e-1"] or (1.0, 0.0)
    assert 0.0 <= low < 0.5 < high <= 1.0


def test_reports_without_trials_stay_as_they_are() -> None:
    bare = replace(verification(), trials={})
    assert with_intervals(bare) is bare


def test_one_class_gets_no_interval() -> None:
    given = verification()
    kept = given.trials["same"]
    one = replace(given, trials={name: values[kept] for name, values in given.trials.items()})
    assert not any(intervals(with_intervals(one, draws=10)).values())


@pytest.mark.parametrize(("options", "said"), [({"draws": 0}, "at least 1 draw"), ({"level": 95}, "level is 95")])
def test_senseless_options_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_intervals(replace(verification(), trials={}), **options)  # type: ignore[arg-type]


def test_intervals_are_shown_everywhere() -> None:
    shown = Report(
        "LFW",
        (Metric("accuracy", 0.995, interval=(0.99312, 0.99661)),),
        {"bootstrap": {"draws": 1000, "seed": 0, "level": 0.95, "by": "by identity, 5,749 people"}},
    )
    reports = {"a": [shown]}
    assert format_metric(shown.headline) == "99.50 [99.31, 99.66]"
    assert format_metric(replace(shown.headline, spread=0.0012)) == "99.50 ± 0.12 [99.31, 99.66]"
    assert conditions(shown) == "95 % intervals in [ ], 1,000 bootstrap draws by identity, 5,749 people"
    assert "99.50 [99.31, 99.66]" in as_markdown(reports, compare(reports))
    (row,) = csv.DictReader(io.StringIO(as_csv(reports)))
    assert (row["low"], row["high"]) == ("0.99312", "0.99661")
