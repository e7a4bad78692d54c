"""The benchmark of networks whole and in parts runs, and what it counts adds up."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    program = importlib.import_module("parallel")
    out = tmp_path / "parallel.json"
    program.main(networks=["vit_t with LoRA"], updates=1, out=out)
    whole, parts = json.loads(out.read_text())["rows"]
    assert (whole["parallel"], parts["parallel"]) == ("ddp", "fsdp")
    for kind in ("parameters", "gradients", "state"):
        assert 0.5 * whole[kind] <= parts[kind] < 0.6 * whole[kind]
    assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    for row in (whole, parts):
        assert set(row["peaks"]) == {"build", "share out", "forward", "backward", "optimizer"}
    assert whole["gradients"] < 0.2 * whole["parameters"], "the base is frozen"
    assert "GB held by a process" in capsys.readouterr().out
