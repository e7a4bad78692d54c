"""The benchmark of DPAP runs, its two programs agree, and its ratios are those of rounds."""

import importlib
import json
import statistics
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_dpap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    program = importlib.import_module("dpap")
    out = tmp_path / "dpap.json"
    program.main(batch_size=8, dim=8, depth=1, rounds=2, threads=1, out=out)
    augmentation, steps = json.loads(out.read_text())["tables"].values()
    assert [row["program"] for row in augmentation] == ["loop", "batched"]
    assert [row["program"] for row in steps] == ["without", "stale", "fresh", "published"]
    rounds = [loop / ours for loop, ours in zip(*(row["seconds"] for row in augmentation), strict=True)]
    assert augmentation[0]["ratio"] == pytest.approx(statistics.median(rounds))
    assert "A step of 8 images" in capsys.readouterr().out
