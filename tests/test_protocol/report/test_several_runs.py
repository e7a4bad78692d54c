"""Several runs as one row."""

from dataclasses import replace

import numpy as np
import pytest

from facelab.errors import ConfigError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report.comparison import compare
from facelab.test_protocol.report.several_runs import grouped_runs, mean_of_runs


def run(value: float | None, seed: int = 0, protocol: str = "LFW") -> Report:
    numbers = (Metric("accuracy", value, 0.1, note="± standard error", interval=(0.1, 0.9)), Metric("AUC", 0.5))
    return Report(protocol, numbers, {"flip": True, "seed": seed}, trials={"same": np.ones(3, bool)})


def test_mean_and_deviation_by_hand() -> None:
    (result,) = mean_of_runs({"s0": [run(0.90, 0)], "s1": [run(0.92, 1)], "s2": [run(0.97, 2)]})
    accuracy, auc = result.metrics
    assert accuracy.value == pytest.approx(0.93)
    assert accuracy.spread == pytest.approx(np.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert (accuracy.note, accuracy.interval) == ("mean ± standard deviation of 3 runs", None)
    assert auc.spread == 0.0
    assert result.options == {"flip": True, "runs": ["s0", "s1", "s2"]}
    assert not result.trials


def test_one_run_has_no_deviation() -> None:
    (result,) = mean_of_runs({"s0": [run(0.9)]})
    assert (result.headline.value, result.headline.spread, result.headline.note) == (0.9, None, "one run")


def test_what_a_run_does_not_have_has_no_mean() -> None:
    (result,) = mean_of_runs({"s0": [run(0.9), run(0.8, protocol="CFP")], "s1": [run(None)]})
    assert (result.protocol, result.headline.value) == ("LFW", None)
    assert result.headline.note == "not measured in run s1"
    bare = replace(run(0.9), metrics=run(0.9).metrics[:1])
    (result,) = mean_of_runs({"s0": [run(0.9)], "s1": [bare]})
    assert result.metrics[1].note == "not measured in run s1"
    assert mean_of_runs({}) == []


def test_groups_become_rows_of_the_table() -> None:
    reports = {"a0": [run(0.90)], "b": [run(0.80)], "a1": [run(0.92)]}
    grouped = grouped_runs(reports, {"a": ["a0", "a1"]})
    texts = [tuple(cell.text for cell in row) for row in compare(grouped).rows]
    assert texts == [("a", "91.00 ± 1.41"), ("b", "80.00 ± 10.00")]


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"a": ["a0", "a9"]}, "there is no run 'a9' to group; there are a0, b"),
        ({"a": ["a0"], "c": ["a0"]}, "run 'a0' is named twice"),
        ({"b": ["a0"]}, "'b' names a group and a run outside of it"),
    ],
)
def test_senseless_groups_are_refused(groups: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        grouped_runs({"a0": [run(0.9)], "b": [run(0.8)]}, groups)
