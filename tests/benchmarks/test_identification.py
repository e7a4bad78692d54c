"""The identification benchmark runs, and both programs find the same rates."""

import importlib
import json
from pathlib import Path

import pytest

from facelab.errors import DataError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_identification(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "identification.json"
    sizes = {"probes": 170, "compared": 60, "distractors": 300, "tiny": (20, 30, 40), "dim": 16}
    importlib.import_module("identification").main(**sizes, threads=1, out=out)
    figures = json.loads(out.read_text())
    (row,) = figures["rows"]
    assert row["what"].startswith("MegaFace, 170 probes, 60 distractors")
    assert row["ratio"] > 0
    assert [one["what"].split(",")[0] for one in figures["alone"]] == ["TinyFace", "MegaFace"]
    assert all(one["seconds"] > 0 and one["peak_gb"] > one["embeddings_gb"] for one in figures["alone"])
    assert "facelab alone: TinyFace" in capsys.readouterr().out


def test_programs_that_disagree_are_not_compared() -> None:
    with pytest.raises(DataError, match="the programs disagree"):
        importlib.import_module("identification").check_agreement([0.5], [0.6])
