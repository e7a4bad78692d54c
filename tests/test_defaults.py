"""What settings mean by what they leave out: a run that goes on, or is repeated, in a later version is the same run."""

import inspect
import json
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from facelab.cli.names import REGISTRIES
from facelab.engine.optimization import OptimizerConfig
from facelab.engine.schedules import ScheduleConfig
from facelab.registry import Registry
from facelab.run.data_settings import DataSettings
from facelab.run.settings import CheckpointSettings, EvaluationSettings, TrainingSettings

STORED = Path(__file__).parent / "golden" / "defaults.json"
SETTINGS = (CheckpointSettings, DataSettings, EvaluationSettings, OptimizerConfig, ScheduleConfig, TrainingSettings)


def plain(value: Any) -> Any:
    """A default as JSON has it."""
    return list(map(plain, value)) if isinstance(value, tuple | list) else value


def is_plain(value: Any) -> bool:
    return all(map(is_plain, value)) if isinstance(value, list) else isinstance(value, str | int | float | None)


def of_registry(registry: Registry[Any]) -> dict[str, dict[str, Any]]:
    """Default of each option of each entry of ours."""
    own = [name for name in registry.names() if registry.get(name).__module__.startswith("facelab.")]
    found = {}
    for name in own:
        defaults = {option: plain(one.default) for option, one in registry.parameters(name).items()}
        found[name] = {option: value for option, value in defaults.items() if is_plain(value)}
    return found


def of_settings(model: type[BaseModel]) -> dict[str, Any]:
    defaults = {name: plain(field.default) for name, field in model.model_fields.items()}
    return {name: value for name, value in defaults.items() if is_plain(value)}


@cache
def defaults() -> dict[str, dict[str, dict[str, Any]]]:
    registries = {kind: getattr(import_module(module), name) for kind, (module, name) in REGISTRIES.items()}
    found = {kind: of_registry(one) for kind, one in registries.items() if isinstance(one, Registry)}
    return found | {"settings": {model.__name__: of_settings(model) for model in SETTINGS}}


@pytest.mark.parametrize("kind", [*REGISTRIES, "settings"])
def test_what_is_left_out_means_what_it_did(kind: str) -> None:
    """One that changes has a line in CHANGELOG.md; ``PYTHONPATH=. python tests/test_defaults.py`` writes the file."""
    stored, found = json.loads(STORED.read_text())[kind], defaults()[kind]
    for name, options in stored.items():
        for option, value in options.items():
            assert found[name].get(option, inspect.Parameter.empty) == value, f"{name} {option}"


if __name__ == "__main__":
    STORED.write_text(json.dumps(defaults(), indent=1, sort_keys=True) + "\n")
