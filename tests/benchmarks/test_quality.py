"""The benchmark of BRISQUE runs, and says when its baseline was not measured."""

import importlib
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.skipif(find_spec("brisque") is None, reason="BRISQUE needs the package brisque (pip install brisque)")
def test_brisque(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    out = tmp_path / "quality.json"
    importlib.import_module("quality").main(
        images=4, one_by_one=2, batch_size=2, rounds=2, baseline_python=None, tar=None, out=out
    )
    (row,) = json.loads(out.read_text())["rows"]
    assert row["baseline"] == [pytest.approx(1 / 0.03)]
    assert len(row["facelab"]) == 2
    assert "The baseline was not measured" in capsys.readouterr().out
