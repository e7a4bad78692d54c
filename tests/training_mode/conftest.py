"""Runs of seconds for the tests of whole runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config

TINY = Path(__file__).parent.parent / "tiny_run.yaml"


@pytest.fixture
def run_tiny() -> Callable[..., RunResult]:
    """A function that trains the tiny run with overrides into a folder."""

    def run(folder: Path, *overrides: str, **options: Any) -> RunResult:
        return run_training(load_config(str(TINY), list(overrides)), folder, Console(quiet=True), **options)

    return run


@pytest.fixture
def cut_back() -> Callable[[Path, Path, int], Path]:
    """A function that copies a run as if it had been killed after an update of which a checkpoint was kept."""

    def cut(run: Path, target: Path, update: int) -> Path:
        shutil.copytree(run, target)
        name = f"step-{update:08d}"
        for path in (target / "checkpoints").glob("step-*"):
            if path.name != name:
                shutil.rmtree(path)
        index = {"last": name, "best": None, "best_score": None, "kept": [name]}
        (target / "checkpoints" / "index.json").write_text(json.dumps(index))
        return target

    return cut
