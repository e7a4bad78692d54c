"""The benchmark of the gate runs, and its ratio is that of rounds."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_gate_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    program = importlib.import_module("gate_cost")
    for name, value in {"WIDTHS": (8,), "TOKENS": (3,), "CHANNELS": 8, "SIDES": (4,)}.items():
        monkeypatch.setattr(program, name, value)
    out = tmp_path / "gate_cost.json"
    program.main(rank=2, depth=2, batch_size=[2], precision=None, least=0.001, rounds=2, threads=1, out=out)
    figures = json.loads(out.read_text())
    assert len(figures["rows"]) == 2 * 2 * 2
    row = figures["rows"][0]
    rounds = [d / s for d, s in zip(row["seconds"]["dual"], row["seconds"]["single"], strict=True)]
    assert row["ratio"] == pytest.approx(sum(rounds) / 2)
    assert f"ratio: median {figures['summary']['ratio']['median']:.3f}" in " ".join(capsys.readouterr().out.split())
