"""The study of students of coarse faces: what its arms change, and which of them are compared."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from facelab.errors import ConfigError
from facelab.run.settings import make_config
from facelab.training_mode.base import MODES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("lowres_students")


def config(module: ModuleType, arm: str, tmp_path: Path, steps: int = 0) -> Any:
    files = importlib.import_module("lowres_faces").Files(tmp_path, tmp_path / "pairs.txt", tmp_path / "cache")
    return make_config(module.settings(arm, 1, files, tmp_path / "people.txt", 640, steps), arm)


def test_twins_differ_by_the_teacher_alone(module: ModuleType, tmp_path: Path) -> None:
    for taught, (student, weight) in module.TAUGHT.items():
        one, other = config(module, taught, tmp_path), config(module, student, tmp_path)
        ((mode, options),) = one.mode.items()
        MODES.check(mode, options)
        assert options["view"] == "stored", "the teacher sees sharp faces"
        assert options["losses"] == {"Angular": weight}
        assert one.model_copy(update={"mode": other.mode, "name": other.name}) == other
        assert ("low_resolution" in other.data.augment) == ("low" in student)


def test_a_student_has_its_own_updates_unless_told_otherwise(module: ModuleType, tmp_path: Path) -> None:
    assert config(module, "small", tmp_path).training.epochs == 130
    assert config(module, "again low", tmp_path).training.epochs == 26
    assert config(module, "again low", tmp_path, steps=25).training.epochs == 2


def test_an_unknown_arm_is_refused(module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="arm is 'smal'. Did you mean 'small'?"):
        module.main(shared=tmp_path, out=tmp_path, arms=["smal"])
