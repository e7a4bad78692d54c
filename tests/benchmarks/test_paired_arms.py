"""Arms of a study against one of them, pair by pair over all seeds."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from facelab.errors import ConfigError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report.run_report import write_run_report

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def finish(folder: Path, wrong: int, wrong_low: int) -> Path:
    """A run that decides some of its 40 pairs wrongly, and others at 16 pixels."""
    same = np.arange(40) % 2 == 0
    flipped = [same ^ (np.arange(40) < count) for count in (wrong, wrong_low)]
    left = np.arange(40, dtype=np.int32)
    people = {"left": left, "right": np.where(same, left, left + 40).astype(np.int32)}
    trials = {
        **people,
        "score": flipped[0].astype(np.float32),
        "same": same,
        "score@16px": flipped[1].astype(np.float32),
    }
    metrics = (
        Metric("accuracy", 1 - wrong / 40),
        Metric("threshold", 0.5),
        Metric("accuracy@16px", 1 - wrong_low / 40),
    )
    write_run_report(folder, {folder.name: [Report("LFW", metrics, {}, trials=trials)]})
    return folder


def test_all_seeds_count_and_each_condition_is_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    paired_table = importlib.import_module("paired_arms").paired_table
    runs = {
        "alone": [finish(tmp_path / f"alone-{seed}", 8, 4) for seed in range(2)],
        "taught": [finish(tmp_path / f"taught-{seed}", 2, 4) for seed in range(2)],
        "unfinished": [finish(tmp_path / "unfinished-0", 0, 0)],
    }
    assert paired_table(runs, "alone").splitlines()[2:] == [
        "| LFW | taught | alone | +15.00 | 12 : 0 | 0.0005 |",
        "| LFW@16px | taught | alone | +0.00 | 0 : 0 | 1.0000 |",
    ]
    with pytest.raises(ConfigError, match="arm is 'teached'. Known: alone, taught, unfinished"):
        paired_table(runs, "teached")


def test_people_are_drawn_and_seeds_are_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    drawn_table = importlib.import_module("paired_arms").drawn_table
    runs = {
        "alone": [finish(tmp_path / f"alone-{seed}", 8, 4) for seed in range(2)],
        "taught": [finish(tmp_path / f"taught-{seed}", wrong, 4) for seed, wrong in ((0, 2), (2, 0))],
        "later": [finish(tmp_path / "later-2", 0, 4)],
    }
    lines = drawn_table(runs, ["alone", "unknown"], ["accuracy", "accuracy@16px"]).splitlines()[2:]
    assert [line.split(" | ")[1:5] for line in lines] == [
        ["taught", "alone", "1", "+15.00"],
        ["taught", "alone", "1", "+0.00"],
    ], "on the seed that both have; 'later' has none of them"
    assert lines[1].endswith("| +0.00 to +0.00 | 1.000 |")
