"""The study of low-resolution adaptation: nobody is on two sides, finished runs are kept, tables say what was found."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from facelab.adapter.base import ADAPTERS
from facelab.adapter.gate import GATES
from facelab.data.sources.degradation import Degradation
from facelab.data.transforms.low_resolution import RECIPES
from facelab.errors import ConfigError
from facelab.run.settings import load_config

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a part of the benchmark by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


CAMERA, SENT_ON = "camera 16", "second_order 16"


def made_up_run(arm: str, found: int, seed: int = 0, recipe: str = "camera") -> dict[str, Any]:
    """A run that finds ``found`` of ten low probes, fewer of those sent on, and decides all four pairs rightly."""
    conditions = {f"{recipe} {size}": found for recipe in RECIPES for size in (8, 12, 16, 20, 24)} | {
        SENT_ON: found - 2
    }
    tars = {"cross TAR": 0.5, "low-low TAR": 0.25}
    rates = {
        name: {**tars, **{f"{kind} rank-{k}": low / 10 for kind in ("low", "mixed") for k in (1, 5, 10)}}
        for name, low in conditions.items()
    }
    ranks = {name: [1] * low + [3] * (10 - low) for name, low in conditions.items()}
    trained = arm not in ("frozen", "frozen, flipped")
    return {
        **{"arm": arm, "seed": seed, "trained": 7 * trained, "LFW accuracy": 1.0, "high rank-1": 0.9},
        "setting": {"train_recipe": recipe, "base": "edgeface", "split": 0, "steps": trained},
        "conditions": rates,
        "trials": {"person": list(range(10)), "ranks": ranks, "right": "1111"},
    }


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


def test_a_split_is_another_for_another_seed(module: Any) -> None:
    class People:
        labels = np.repeat(np.arange(700), [1] * 270 + [8] * 430)

    splits = [module("lowres_faces").split(People(), seed) for seed in (0, 0, 1)]
    assert all((one == other).all() for one, other in zip(*splits[:2], strict=True))
    assert set(splits[0][0].tolist()) != set(splits[2][0].tolist())


@pytest.mark.parametrize("recipe", RECIPES)
def test_low_versions_are_those_of_the_source(module: Any, recipe: Any) -> None:
    faces, pixels = module("lowres_faces"), np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    degradation, rows = Degradation((8, 12), recipe=recipe), np.array([5, 2, 9])
    found = faces.degraded(pixels, rows, degradation, 1, "cpu")
    assert (found == np.stack([degradation(one, 1, row) for one, row in zip(pixels, rows.tolist(), strict=True)])).all()


def test_what_is_stored_is_made_once(module: Any, tmp_path: Path) -> None:
    stored_once, path = module("lowres_faces").stored_once, tmp_path / "new" / "three.npy"
    assert stored_once(path, lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert stored_once(path, lambda: np.zeros(3)).tolist() == [0, 1, 2]


def test_dlibs_network_takes_apart_what_face_api_stored(module: Any, tmp_path: Path) -> None:
    """Scales and shifts go into the convolution before them: w (a x + b) + c is (w a) x + (w b + c)."""
    entries = [("conv32_down/conv/filters", [1, 1, 1, 2]), ("conv32_down/conv/bias", [2])]
    entries += [("conv32_down/scale/weights", [2]), ("conv32_down/scale/biases", [2]), ("fc", [2, 1])]
    weights = [{"name": name, "shape": shape, "dtype": "float32"} for name, shape in entries]
    weights[0]["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -1.0}
    (tmp_path / "face_recognition_model-weights_manifest.json").write_text(json.dumps([{"weights": weights}]))
    rest = np.array([1, 2, 10, 100, 0.25, 0.5, 7, 8], np.float32)
    (tmp_path / "face_recognition_model.bin").write_bytes(bytes([4, 6]) + rest.tobytes())
    bases = module("lowres_bases")
    state = bases.folded(bases.read_tensors(tmp_path))
    assert state["stem.weight"].flatten().tolist() == [10.0, 200.0]
    assert state["stem.bias"].tolist() == [10.25, 200.5]
    assert state["fc.weight"].tolist() == [[7.0, 8.0]]


def test_dlibs_network_gives_embeddings(module: Any) -> None:
    assert module("lowres_bases").DlibResNet()(torch.zeros(1, 3, 112, 112)).shape == (1, 128)


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
    table = results.markdown(runs, CAMERA).splitlines()
    assert len(table) == 4
    assert "| single | 7 | 1 | 40.0 |" in table[2]
    assert "| dual | 7 | 2 | 90.0 ± 0.0 |" in table[3]
    (row,) = [line for line in results.paired_table(runs, CAMERA).splitlines() if line.startswith("| dual")]
    assert row.startswith("| dual | single | +50.00 [")
    assert "| +0.00 (0 : 0) | 1.000 |" in row
    (row,) = [line for line in results.markdown(runs, SENT_ON).splitlines() if line.startswith("| single")]
    assert row.startswith("| single | 7 | 1 | 20.0 |")


def test_the_frozen_base_stands_beside_every_seed(module: Any) -> None:
    results = module("lowres_results")
    runs = {"frozen": [made_up_run("frozen", 4)], "dual": [made_up_run("dual", 9, seed) for seed in (0, 1)]}
    trained, frozen = results.same_seeds(runs["dual"], runs["frozen"])
    assert [run["seed"] for run in trained] == [0, 1]
    assert [run["arm"] for run in frozen] == ["frozen", "frozen"]


def test_the_matrix_of_recipes(module: Any, tmp_path: Path) -> None:
    arms, matrix = module("lowres_arms"), module("lowres_matrix")
    setting = arms.Setting(steps=1)
    assert not matrix.matrices(tmp_path, setting)
    for recipe in ("camera", "interpolation"):
        for arm, found in (("full", 5), ("silent, BRISQUE", 9)):
            run = made_up_run(arm, found, recipe=recipe)
            (tmp_path / f"{arms.Setting(recipe, steps=1).stem(arm, 0)}.json").write_text(json.dumps(run))
    (tmp_path / "frozen.json").write_text(json.dumps(made_up_run("frozen", 3)))
    text = matrix.matrices(tmp_path, setting)
    assert "| camera | frozen | 30.0 | 30.0 | 30.0 | 10.0 | 90.0 | 100.00 |" in text
    assert "| interpolation | silent, BRISQUE | 90.0 | 90.0 | 90.0 | 70.0 | 90.0 | 100.00 |" in text
    assert "| interpolation | silent, BRISQUE | full | +40.00 [" in text
    assert "| second_order | silent, BRISQUE | 90.0 | 90.0 | 70.0 | 90.0 | 90.0 |" in text


def test_finished_runs_are_not_run_again(module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = module("lowres_adaptation")
    stem = module("lowres_arms").Setting(steps=1).stem("dual", 0)
    (tmp_path / f"{stem}.json").write_text(json.dumps(made_up_run("dual", 9)))
    both = np.repeat(np.eye(6)[:, None], 2, axis=1)
    people = {"gallery_person": np.arange(6), "probe_person": np.arange(6)}
    (tmp_path / "cache" / "embeddings").mkdir(parents=True)
    np.savez(tmp_path / "cache" / "embeddings" / f"{stem}.npz", **{"gallery": both, CAMERA: both}, **people)
    program.main(shared=tmp_path / "nothing", out=tmp_path, arms=["dual"], seeds=1, steps=1, threads=1)
    assert "| dual | 7 | 1 | 90.0 |" in capsys.readouterr().out
    assert "| dual | 7 | 1 | 90.0 |" in (tmp_path / "table.md").read_text()
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("rates.png", "embeddings.png"))
    with pytest.raises(ConfigError, match="arm is 'duel'. Did you mean 'dual'"):
        program.main(shared=tmp_path, out=tmp_path, arms=["duel"], seeds=1, steps=1, threads=1)
    with pytest.raises(ConfigError, match="probes is 'camera 17'. Did you mean 'camera 16'"):
        program.main(shared=tmp_path, out=tmp_path, probe_size=17)


def test_the_arms_of_shipped_configurations_are_settings(module: Any) -> None:
    shipped = module("lowres_shipped")
    adapters = {arm: load_config(shipped.CONFIG, changes).adapter for arm, changes in shipped.ARMS.items()}
    assert adapters == {
        **{"as shipped": "SilentExpert", "side by side, BRISQUE": {"SilentExpert": {"added": False}}, "full": "Full"},
        **{"LoRA": {"LoRA": {"rank": 16}}, "dual LoRA": {"DualLoRA": {"rank": 8}}},
    }
