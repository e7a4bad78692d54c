"""The benchmark of shards runs, and writes the figures that it shows."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))
    out = tmp_path / "shards.json"
    importlib.import_module("shards").main(images=64, per_shard=30, delay=1.0, workers=2, rounds=1, out=out)
    figures = json.loads(out.read_text())
    assert len(figures["rates"]) == 5
    assert all(rate > 0 for rates in figures["rates"].values() for rate in rates)
    assert "server 1 ms away, ShardShuffle" in capsys.readouterr().out
