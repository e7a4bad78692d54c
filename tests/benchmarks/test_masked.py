"""The study of masked faces runs, and goes on where it was; its rates are those worked by hand."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("masked")


def test_four_models_make_one_table(program: ModuleType, tmp_path: Path) -> None:
    program.main(
        out=tmp_path,
        train="{SyntheticFaces: {identities: 8, per_identity: 8}}",
        test="{SyntheticFaces: {identities: 6, per_identity: 3, split: test}}",
        backbone="{MobileFaceNet: {width: 0.25, feat_dim: 16}}",
        size=32,
        epochs=2,
        seeds=1,
    )
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0] == "| model | plain rank-1 | plain TAR | masked rank-1 | masked TAR |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| plain", "| upper half", "| with masks", "| both"]
    assert set(json.loads((tmp_path / "results.json").read_text())["results"]) == set(program.MODELS)
    steps = [
        int((tmp_path / f"{name}-0" / "checkpoints").glob("step-*").__next__().name.removeprefix("step-"))
        for name in ("plain", "upper-half", "with-masks")
    ]
    assert len(set(steps)) == 1, "all have as many updates"


def test_gallery_and_probes(program: ModuleType) -> None:
    """Of four people with several images and one with one, the last of the former and the latter are distractors."""
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 3, 4, 4])
    gallery, probe = program.gallery_and_probes(labels)
    assert gallery.tolist() == [0, 2, 5, 7, 8]
    assert probe.tolist() == [1, 3, 4, 6]


def test_rates_by_hand(program: ModuleType) -> None:
    gallery = np.eye(3)
    probe = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.8], [0.1, 0.7, 0.0]])
    found = program.rates(gallery, probe, np.arange(3), np.array([0, 1, 1]))
    assert found["rank-1"] == pytest.approx(200 / 3)
    assert found["TAR"] == pytest.approx(100 / 3)  # above 0.8, the highest of another person, 0.9 alone
