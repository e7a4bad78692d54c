"""A trained run of seconds, shared by the tests of the commands and of the model."""

from pathlib import Path

import cv2
import pytest
from rich.console import Console

from facelab.data.synthetic import SyntheticFaces
from facelab.training_mode.run import run_training
from facelab.training_mode.settings import load_config

PROTOCOL = "evaluation.protocols={synthetic: {SyntheticPairs: {identities: 20, per_identity: 4, folds: 2, pairs: 40}}}"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with two kept checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = Path(__file__).parent.parent / "tiny_run.yaml"
    overrides = [PROTOCOL, "training.epochs=2", "checkpoint.keep_every_epochs=1"]
    run_training(load_config(str(config), overrides), folder, Console(quiet=True))
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
