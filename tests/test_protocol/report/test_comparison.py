"""The comparison table: columns in the order of the field, the best, what is within noise, what stands beside."""

from collections.abc import Mapping

import numpy as np
import pytest

from facelab.errors import ConfigError
from facelab.test_protocol.base import Better, Metric, Report
from facelab.test_protocol.report.comparison import Comparison, compare


def report(protocol: str, options: Mapping[str, object] | None = None, /, **values: float | None) -> Report:
    metrics = tuple(
        Metric(name.replace("_", "-"), value, better="low" if name == "EER" else "high")
        for name, value in values.items()
    )
    return Report(protocol, metrics, options or {})


def texts(comparison: Comparison) -> list[tuple[str, ...]]:
    return [tuple(cell.marked for cell in row) for row in comparison.rows]


def test_a_row_for_each_model(reports: dict[str, list[Report]]) -> None:
    comparison = compare(reports)
    assert comparison.columns == ("model", "LFW accuracy [%]", "all | same accuracy [%]")
    assert texts(comparison)[1][2] == "–"
    assert [[cell.best for cell in row] for row in comparison.rows] == [[False] * 3, [False, True, False]]
    assert not comparison.has_noise


def test_columns_stand_in_the_order_of_the_field() -> None:
    given = ["mine", "TinyFace", "IJB-C", "ijbb", "calfw", "agedb_30", "CPLFW", "CFP-FP", "lfw"]
    comparison = compare({"m": [report(name, accuracy=0.5) for name in given]})
    assert [title.split()[0] for title in comparison.columns[1:]] == given[:0:-1] + given[:1]


def test_usual_metrics_of_a_protocol_where_they_are_measured() -> None:
    tar = Report("IJB-C", (Metric("TAR@FAR=1e-6", 0.8), Metric("TAR@FAR=1e-4", 0.9)))
    ranks = report("TinyFace", rank_1=0.6, rank_5=0.7, rank_20=0.8)
    comparison = compare({"m": [ranks, tar]})
    assert comparison.columns[1:] == ("IJB-C TAR@FAR=1e-4 [%]", "TinyFace rank-1 [%]", "TinyFace rank-5 [%]")
    assert texts(comparison) == [("m", "90.00", "60.00", "70.00")]


def test_metrics_can_be_chosen() -> None:
    both = {"m": [report("LFW", accuracy=0.9, EER=0.1), report("TinyFace", rank_1=0.6, rank_20=0.8)]}
    assert compare(both, metrics=["EER"]).columns[1] == "LFW EER [%]"
    assert compare(both, metrics=["TinyFace:rank-20"]).columns[1:] == ("LFW accuracy [%]", "TinyFace rank-20 [%]")
    with pytest.raises(ConfigError, match=r"no report has the metric 'rank-2'\. Did you mean 'rank-20'"):
        compare(both, metrics=["rank-2"])
    with pytest.raises(ConfigError, match="no report has the metric 'LFW:rank-1'"):
        compare(both, metrics=["LFW:rank-1"])


def test_less_is_better_for_errors() -> None:
    comparison = compare({"a": [report("LFW", EER=0.1)], "b": [report("LFW", EER=0.2)], "c": []})
    assert [row[1].best for row in comparison.rows] == [True, False, False]


def test_direction_is_what_the_metric_says_and_not_its_name() -> None:
    def with_area(value: float, better: Better | None) -> list[Report]:
        return [Report("LFW", (Metric("error-versus-reject area", value, better=better),))]

    def best(better: Better | None, other: Better | None) -> list[bool]:
        comparison = compare({"a": with_area(0.1, better), "b": with_area(0.2, other)})
        return [row[1].best for row in comparison.rows]

    assert best("low", "low") == [True, False]
    assert best("high", "high") == [False, True]
    assert best("low", None) == [True, False]  # one of them was written before metrics said it
    assert best(None, None) == [False, False]
    assert best("low", "high") == [False, False]


def test_models_with_different_headlines_get_a_column_each() -> None:
    comparison = compare({"a": [report("LFW", accuracy=0.9)], "b": [report("LFW", other=0.8)]})
    assert texts(comparison) == [("a", "90.00", "–"), ("b", "–", "80.00")]


def ranks(right: int, of: int = 200) -> Report:
    trials = {"person": np.arange(of, dtype=np.int32), "rank": np.where(np.arange(of) < right, 1, 9).astype(np.int32)}
    return Report("TinyFace", (Metric("rank-1", right / of, better="high"),), trials=trials)


def test_what_is_within_noise_is_marked() -> None:
    reports = {
        "best": [ranks(180)],
        "near": [ranks(179)],
        "far": [ranks(100)],
        "untold": [report("TinyFace", rank_1=0.8)],
    }
    comparison = compare(reports, draws=20)
    assert texts(comparison) == [("best", "90.00"), ("near", "89.50†"), ("far", "50.00"), ("untold", "80.00")]
    assert comparison.has_noise
    notes = [row[1].note for row in comparison.rows]
    assert notes[0] == ""
    assert notes[1].startswith("within noise: p = 1, McNemar")
    assert notes[2].startswith("worse: p = ")
    assert notes[3].startswith("untested: ")
    assert not compare(reports).has_noise


def test_error_bars_are_intervals_else_what_stands_behind_the_value() -> None:
    metrics = {
        "both": Metric("accuracy", 0.5, 0.125, interval=(0.25, 0.75)),
        "spread": Metric("accuracy", 0.5, 0.125),
        "none": Metric("accuracy", 0.5),
        "unmeasured": Metric("accuracy", None, 0.125),
    }
    rows = compare({model: [Report("LFW", (metric,))] for model, metric in metrics.items()}).rows
    assert [row[1].ends for row in rows] == [(0.25, 0.75), (0.375, 0.625), None, None]


def test_size_cost_precision_and_files_stand_beside() -> None:
    options = {
        "parameters": 43_590_848,
        "macs": 6_309_330_944,
        "precision": "bf16",
        "files": {"model": "../m", "log": "l"},
    }
    comparison = compare({"a": [report("LFW", options, accuracy=0.9)], "b": [report("LFW", accuracy=0.8)]})
    assert comparison.columns[2:] == ("parameters [M]", "MACs [G]", "precision")
    assert texts(comparison)[0][2:] == ("43.6", "6.31", "bf16")
    assert texts(comparison)[1][2:] == ("–", "–", "–")
    assert comparison.links == ({"model": "../m", "log": "l"}, {})
    assert compare({"a": [report("LFW", {"files": "javascript:x"}, accuracy=0.9)]}).links == ({},)
