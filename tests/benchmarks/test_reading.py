"""The reading benchmark runs, and writes the figures that it shows."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    out = tmp_path / "reading.json"
    importlib.import_module("reading").main(images=32, batch_size=8, workers=0, rounds=2, tar=None, out=out)
    figures = json.loads(out.read_text())
    assert [row["what"] for row in figures["rows"]] == ["uint8 batches", "+ flip and normalisation"]
    for row in figures["rows"]:
        assert len(row["baseline"]) == len(row["facelab"]) == 2
        assert row["ratio"] > 0
    assert figures["machine"]["cores"] >= 1
    assert "uint8 batches" in capsys.readouterr().out


def test_reading_by_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    out = tmp_path / "workers.json"
    importlib.import_module("reading").by_workers(
        images=32, batch_size=8, workers=[1], form=["packed"], seconds=0.1, rounds=2, out=out
    )
    found = json.loads(out.read_text())["rates"]["packed"]
    busy = ["1 threads, busy loop", "1 processes, busy loop"]
    assert list(found) == ["one core", "1 threads", "1 processes", *busy]
    assert all(len(rates) == 2 and min(map(min, rates)) > 0 for rates in found.values())
    assert "busy loop" in capsys.readouterr().out
