"""The IJB benchmark runs, and both programs find the same rates."""

import importlib
import json
from pathlib import Path

import pytest

from facelab.errors import DataError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.parametrize("uniform", [False, True])
def test_ijb(uniform: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ijb.json"
    sizes = {"images": 600, "templates": 60, "pairs": 5000, "dim": 16}
    importlib.import_module("ijb").main(**sizes, uniform=uniform, rounds=2, out=out)
    (row,) = json.loads(out.read_text())["rows"]
    assert (len(row["baseline"]), len(row["facelab"])) == (1, 2)
    assert row["ratio"] > 0
    assert "peak" in capsys.readouterr().out


def test_programs_that_disagree_are_not_compared() -> None:
    with pytest.raises(DataError, match="the programs disagree"):
        importlib.import_module("ijb").check_agreement([0.5], [0.6])
