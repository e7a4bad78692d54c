"""A trained run of seconds and files of other programs, shared by the tests of the commands and of the model."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from facelab.data.synthetic.source import SyntheticFaces
from facelab.quality.card import ScorerCard
from facelab.quality.table import write_scores
from facelab.run.run import run_training
from facelab.run.settings import load_config

TINY = Path(__file__).parent.parent / "tiny_run.yaml"
PROTOCOL = "evaluation.protocols={synthetic: {SyntheticPairs: {identities: 20, per_identity: 4, folds: 2, pairs: 40}}}"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with two kept checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    overrides = [PROTOCOL, "training.epochs=2", "checkpoint.keep_every_epochs=1"]
    run_training(load_config(str(TINY), overrides), folder, Console(quiet=True))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two photos of the size that `trained_run` takes."""
    folder = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(identities=2, per_identity=1, size=32, split="test")
    paths = [folder / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), faces.read(number)[:, :, ::-1])
    return paths


@pytest.fixture(scope="session")
def adapt(trained_run: Path) -> Callable[..., Path]:
    """A function that adapts `trained_run` with overrides into a folder; by a scorer called ``made``, from 0 to 1."""

    def adapted(folder: Path, *overrides: str) -> Path:
        faces = SyntheticFaces(identities=8, per_identity=8, size=32)
        table = folder.parent / f"{folder.name}.csv"
        write_scores(table, faces, np.linspace(0, 1, 64, dtype=np.float32), ScorerCard(name="made", low=0, high=1))
        words = {"data.quality": f"data.quality={table}"} | {word.split("=")[0]: word for word in overrides}
        more = ["mode=adaptation", "backbone=null", f"base={trained_run}", "training.epochs=2", "optimizer.lr=0.3"]
        run_training(load_config(str(TINY), [*more, *words.values()]), folder, Console(quiet=True))
        return folder

    return adapted


@pytest.fixture(scope="session")
def dual(adapt: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with two experts, adapted by a table of scores."""
    return adapt(tmp_path_factory.mktemp("adapted") / "dual", "adapter={DualLoRA: {rank: 2}}", "gate=sigmoid")


@pytest.fixture(scope="session")
def by_sharpness(adapt: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with two experts, adapted by a scorer."""
    words = ["adapter={DualLoRA: {rank: 2}}", "gate=sigmoid", "data.quality={Sharpness: {}}", "training.epochs=1"]
    return adapt(tmp_path_factory.mktemp("sharp") / "sharp", *words)


@pytest.fixture
def foreign_class(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """Makes a class that pickles under a path such as ``package.module.Name`` of a package that is not installed."""

    def make(path: str, *bases: type) -> type:
        module, _, name = path.rpartition(".")
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
        cls = type(name, bases, {"__module__": module})
        setattr(sys.modules[module], name, cls)
        return cls

    return make


@pytest.fixture
def save_lightning(
    foreign_class: Callable[..., type], monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any], Path], None]:
    """Saves what it is given with what Lightning keeps of callbacks, schedule and settings, objects of its own."""

    def save(content: dict[str, Any], path: Path) -> None:
        callback = foreign_class("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
        settings = foreign_class("pytorch_lightning.utilities.parsing.AttributeDict", dict)({"root": Path("faces")})
        more = {
            "callbacks": {callback: {"best_model_score": torch.tensor(0.9), "saved": callback()}},
            "lr_schedulers": [{"milestones": Counter([12, 20, 24])}],
            "hyper_parameters": settings,
        }
        torch.save({**content, **more}, path)
        monkeypatch.undo()  # the packages are gone again

    return save
