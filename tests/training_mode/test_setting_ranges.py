"""Every number in the settings of a run: its range to the last digit."""

import math
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import ValidationError

from facelab.config import Strict
from facelab.engine.optimization import OptimizerConfig
from facelab.engine.schedules import ScheduleConfig
from facelab.run.data_settings import DataSettings
from facelab.run.settings import CheckpointSettings, EvaluationSettings, TrainingSettings

POSITIVE, NOT_NEGATIVE, COUNT = "(0, inf)", "[0, inf)", "[1, inf)"
RANGES: dict[type[Strict], dict[str, str]] = {
    OptimizerConfig: {
        **dict.fromkeys(("lr", "class_lr", "eps"), POSITIVE),
        **{"momentum": "[0, 1)", "weight_decay": NOT_NEGATIVE},
    },
    ScheduleConfig: {
        **dict.fromkeys(("warmup_epochs", "warmup_start", "minimum"), NOT_NEGATIVE),
        **{"gamma": "(0, 1]", "power": POSITIVE},
    },
    DataSettings: {"workers": NOT_NEGATIVE, "prefetch": COUNT},
    TrainingSettings: {
        **dict.fromkeys(("epochs", "batch_size", "accumulate", "log_every"), COUNT),
        **{"clip_norm": POSITIVE, "class_skip": "[0, 1)"},
    },
    EvaluationSettings: {"every_epochs": NOT_NEGATIVE, "every_updates": COUNT, "batch_size": COUNT},
    CheckpointSettings: dict.fromkeys(("every_epochs", "every_updates", "keep_every_epochs"), COUNT),
}
NUMBERS = [(model, field, span) for model, ranges in RANGES.items() for field, span in ranges.items()]
NEEDED: dict[type[Strict], dict[str, Any]] = {DataSettings: {"source": "SyntheticFaces"}}


def kinds(annotation: Any) -> set[Any]:
    """What a setting may be, such as {int, None}."""
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set[Any]().union(*map(kinds, get_args(annotation)))
    return {annotation}


def is_number(annotation: Any) -> bool:
    """Whether it is one number, beside None and words."""
    one = {kind for kind in kinds(annotation) if kind is not NoneType and get_origin(kind) is not Literal}
    return one in ({int}, {float})


def is_whole(model: type[Strict], field: str) -> bool:
    return int in kinds(model.model_fields[field].annotation)


@pytest.mark.parametrize(("model", "field", "span"), NUMBERS)
def test_a_number_is_taken_up_to_its_bounds_and_refused_beyond(model: type[Strict], field: str, span: str) -> None:
    low, high = map(float, span[1:-1].split(", "))
    step: Any = (lambda value, to: int(value + to)) if is_whole(model, field) else math.nextafter
    inside, outside = (low, step(low, -1)) if span[0] == "[" else (step(low, 1), low)
    allowed, refused = [inside], [outside]
    if math.isinf(high):
        refused += [] if is_whole(model, field) else [high, math.nan]
    else:
        allowed.append(high if span[-1] == "]" else step(high, 0))
        refused.append(step(high, 2) if span[-1] == "]" else high)
    needed = NEEDED.get(model, {})
    for value in allowed:
        assert getattr(model.model_validate({**needed, field: value}), field) == value
    for value in refused:
        with pytest.raises(ValidationError, match=field):
            model.model_validate({**needed, field: value})


@pytest.mark.parametrize("model", RANGES)
def test_no_number_is_left_out(model: type[Strict]) -> None:
    numbers = {name for name, field in model.model_fields.items() if is_number(field.annotation)}
    assert numbers == set(RANGES[model])


@pytest.mark.parametrize("betas", [[0.0, 0.9], [0.9, 0.0], [math.nextafter(1.0, 0.0), 0.5]])
def test_betas_of_adamw_start_at_0(betas: list[float]) -> None:
    assert OptimizerConfig.model_validate({"betas": betas}).betas == tuple(betas)


@pytest.mark.parametrize("betas", [[1.0, 0.9], [0.9, 1.0], [math.nextafter(0.0, -1.0), 0.5]])
def test_betas_of_adamw_end_before_1(betas: list[float]) -> None:
    with pytest.raises(ValidationError, match=r"betas must lie in \[0, 1\)"):
        OptimizerConfig.model_validate({"betas": betas})
