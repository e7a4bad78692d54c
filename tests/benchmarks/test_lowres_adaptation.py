"""The study of low-resolution adaptation: nobody is on two sides, finished runs are kept, tables say what was found."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer

from facelab.adapter.base import ADAPTERS
from facelab.adapter.gate import GATES
from facelab.errors import ConfigError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a part of the benchmark by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def made_up_run(arm: str, found: int, seed: int = 0) -> dict[str, Any]:
    """A run that finds ``found`` of ten low probes of ten people, and decides all four pairs rightly."""
    rates = {f"{name} rank-{k}": found / 10 for name in ("low", "mixed", "high") for k in (1, 5, 10)}
    trials = {
        "person": list(range(10)),
        **{name: [1] * found + [3] * (10 - found) for name in ("low", "mixed", "high")},
        **{"margin": [0.1, 0.2, -0.1, -0.2], "same": [True, True, False, False]},
        **{"left": [0, 1, 2, 3], "right": [0, 1, 4, 5]},
    }
    numbers = {"cross TAR": 0.5, "low-low TAR": 0.25, "LFW accuracy": 1.0}
    return {"arm": arm, "seed": seed, "steps": 1, "trained": 7, "trials": trials, **rates, **numbers}


def test_nobody_trains_and_is_tested(module: Any) -> None:
    class People:
        labels = np.repeat(np.arange(700), [1] * 270 + [8] * 430)

    train, gallery, probe = module("lowres_faces").split(People())
    trained, enrolled, searched = (set(People.labels[rows].tolist()) for rows in (train, gallery, probe))
    assert len(trained) == 300
    assert not trained & (enrolled | searched)
    assert len(searched) == 130
    assert searched < enrolled
    assert len(gallery) == 130 + 270
    assert not set(gallery.tolist()) & set(probe.tolist())
    assert np.bincount(People.labels[probe]).max() == 5


def test_every_arm_can_be_built(module: Any) -> None:
    arms = module("lowres_arms").ARMS
    assert sum(not arm.network for arm in arms.values()) <= 15  # that many are trained; the others cost seconds
    assert all(arm.network in arms for arm in arms.values() if arm.network)
    for arm in arms.values():
        for name, options in (arm.adapter or {}).items():
            ADAPTERS.build(name, options)
        for name, options in arm.gate.items():
            GATES.build(name, options)


def test_the_tables(module: Any) -> None:
    results = module("lowres_results")
    runs = {"single": [made_up_run("single", 4)], "dual": [made_up_run("dual", 9, seed) for seed in (0, 1)]}
    table = results.markdown(runs).splitlines()
    assert len(table) == 4
    assert "| single | 7 | 1 | 40.0 |" in table[2]
    assert "| dual | 7 | 2 | 90.0 ± 0.0 |" in table[3]
    (row,) = [line for line in results.paired_table(runs).splitlines() if line.startswith("| dual")]
    assert row.startswith("| dual | single | +50.00 [")
    assert "| +0.00 (0 : 0) | 1.000 |" in row


def test_finished_runs_are_not_run_again(module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = module("lowres_adaptation")
    (tmp_path / "dual-1-0.json").write_text(json.dumps(made_up_run("dual", 9)))
    both = np.repeat(np.eye(6)[:, None], 2, axis=1)
    people = {"gallery_person": np.arange(6), "probe_person": np.tile(np.arange(3), 2)}
    np.savez(tmp_path / "dual-1-0.npz", gallery=both, probe=both, **people)
    program.main(shared=tmp_path / "nothing", out=tmp_path, arms=["dual"], seeds=1, steps=1, pairs=None, threads=1)
    assert "| dual | 7 | 1 | 90.0 |" in capsys.readouterr().out
    assert "| dual | 7 | 1 | 90.0 |" in (tmp_path / "table.md").read_text()
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("rates.png", "embeddings.png"))
    with pytest.raises(ConfigError, match="arm is 'duel'. Did you mean 'dual'"):
        program.main(shared=tmp_path, out=tmp_path, arms=["duel"], seeds=1, steps=1, pairs=None, threads=1)


def test_a_table_has_runs_of_one_pair_of_recipes(module: Any, tmp_path: Path) -> None:
    program = module("lowres_adaptation")
    (tmp_path / "dual-1-0.json").write_text("{}")
    options = {"shared": tmp_path / "nothing", "out": tmp_path, "arms": ["dual"], "seeds": 1, "steps": 1, "threads": 1}
    with pytest.raises(typer.BadParameter, match="holds runs of the recipes camera and camera; give these another"):
        program.main(**options, pairs=None, train_recipe="interpolation")
