"""The bootstrap benchmark runs, and its two programs agree."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    program = importlib.import_module("bootstrap")
    monkeypatch.setattr(program, "SMALL_PAIRS", 5000)
    monkeypatch.setattr(program, "SMALL_DRAWS", 3)
    out = tmp_path / "bootstrap.json"
    program.main(pairs=3000, people=50, same_pairs=100, draws=5, out=out)
    figures = json.loads(out.read_text())
    assert figures["difference"] < 1e-12
    assert figures["full"]["pairs"] == 3000
    low, high = figures["full"]["intervals"]["AUC"]
    assert 0.9 < low <= high <= 1.0
    assert "5 draws" in capsys.readouterr().out
