"""The comparison of ways to train against occlusion: who trains, what the arms change, how they are compared."""

import importlib
import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.run.study import make_study
from facelab.training_mode.base import MODES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("occlusion")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """One to eight images of each of 40 people."""
    folder = tmp_path / "data" / "faces"
    folder.mkdir(parents=True)
    _, jpeg = cv2.imencode(".jpg", np.zeros((112, 112, 3), np.uint8))
    with tarfile.open(folder / "lfw112.tar", "w") as archive:
        for person in range(40):
            for image in range(1 + person % 8):
                member = tarfile.TarInfo(f"P{person:02}/P{person:02}_{image}.jpg")
                member.size = len(jpeg)
                archive.addfile(member, io.BytesIO(jpeg.tobytes()))
    return tmp_path


def test_people_of_five_images_train_and_all_of_them_are_left_out_of_the_test(bench: Any, shared: Path) -> None:
    faces = bench.real_faces(shared, shared, 300, [])
    assert faces.images == 5 * (5 + 6 + 7 + 8)
    assert len(Path(faces.protocols["LFW"]["LFW"]["exclude"]).read_text().split()) == 20
    few = bench.real_faces(shared, shared, 1, ["mouth"])
    assert few.images == 70, "a batch of 64 images, of whole people"
    assert len(Path(few.protocols["LFW"]["LFW"]["exclude"]).read_text().split()) == 20
    assert few.columns == ("accuracy", "accuracy@mouth")


def test_arms_are_runs_of_equal_length_but_the_one_that_pays_for_two_passes(bench: Any, shared: Path) -> None:
    tree = bench.settings(bench.real_faces(shared, shared, 4, []), shared, 4, 1e-4)
    variants = {arm: bench.changes(arm, 0, tree) for arm in bench.ARMS}
    study = make_study({**tree, "name": "arms", "variants": variants}, shared, "arms")
    for arm, config in study.variants.items():
        assert config.training.epochs == (4 if arm == "occluders-2x" else 2), "of two updates"
        assert ("occlude" in config.data.augment) == (arm != "conventional")
        assert config.optimizer.lr == 1e-4
        name, options = next(iter(config.mode.items())) if isinstance(config.mode, dict) else (config.mode, {})
        MODES.check(name, options)


def test_differences_are_of_the_same_seed(bench: Any) -> None:
    own = {"1": np.array([True] * 8 + [False] * 2), "0": np.ones(10, bool)}
    other = {"0": np.array([True] * 9 + [False]), "1": np.zeros(10, bool), "2": np.ones(10, bool)}
    assert bench._differences(own, other) == "+10.00 (1), +80.00 (0.0078)"
    assert bench._differences(own, {}) == ""
