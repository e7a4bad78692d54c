"""Every number that a mode takes, or a loss of one: its range to the last digit, and the sentence where it ends."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from facelab.errors import ConfigError
from facelab.registry import Registry
from facelab.run.assembly import assemble
from facelab.run.run import run_training
from facelab.run.settings import load_config
from facelab.training_mode.base import MODES
from facelab.training_mode.distillation.loss import DISTILLATIONS, Shapes
from facelab.training_mode.triplet.objective import OBJECTIVES

Edges = Callable[[str, bool], tuple[list[float], list[float]]]
TINY = str(Path(__file__).parents[1] / "tiny_run.yaml")
GATED = "{ViT: {patch: 8, dim: 16, depth: 1, heads: 2, feat_dim: 16, patch_gate: true}}"
HIDDEN, PAIRS = "data.augment.occlude={probability: 0.5}", "{ClassBalanced: {images_per_class: 2}}"
SHARE, PART, POSITIVE, WEIGHT, DECAY = "[0, 1]", "(0, 1]", "(0, inf)", "[0, inf)", "[0, 1)"
OF_LOSSES: list[tuple[Registry[Any], str, dict[str, str]]] = [
    (OBJECTIVES, "Center", {"rate": SHARE}),
    (OBJECTIVES, "Contrastive", {"margin": "(0, 4]"}),
    (OBJECTIVES, "MetricLearning", {}),
    (OBJECTIVES, "QualityQueue", {"size": "[1, 1e+07]", "scale": POSITIVE, "threshold": SHARE}),
    (OBJECTIVES, "QualityQueue", {"h": POSITIVE, "rate": PART}),
    (OBJECTIVES, "Triplet", {"margin": "(0, 4]", "seed": "[0, 2.14748e+09)"}),
    (OBJECTIVES, "TupletMargin", {"slack": "[0, 1.5708]", "scale": POSITIVE}),
    (DISTILLATIONS, "FT", {"rate": PART}),
    (DISTILLATIONS, "MarginDistillation", {"smallest": "[0, 0.5]", "largest": "[0.2, 1.5708)", "scale": POSITIVE}),
    (DISTILLATIONS, "RKD", {"distance": WEIGHT, "angle": WEIGHT}),
    (DISTILLATIONS, "SoftTarget", {"temperature": POSITIVE}),
]
# What a mode needs beside its options ({base} is a trained run), and the ranges of these.
OF_MODES: list[tuple[str, list[str], dict[str, str]]] = [
    ("adaptation", ["backbone=null", "base={base}", "adapter=LoRA"], {"distillation": WEIGHT, "alignment": WEIGHT}),
    ("class_pool", ["classifier={ClassPool: {fraction: 1.0}}", "data.sampler=PairsAndInstances"], {"decay": DECAY}),
    ("conventional", [], {"ema": DECAY}),
    ("distillation", ["mode.distillation.teacher={base}"], {"classification": WEIGHT}),
    (
        "occlusion",
        [HIDDEN],
        {"area": "(0, 1)", "probability": SHARE, "strength": POSITIVE, "alternate": "[2, inf)"},
    ),
    ("occlusion", [HIDDEN], dict.fromkeys(("masked", "consistency", "segmentation"), WEIGHT)),
    ("semi_siamese", ["classifier=PrototypeQueue", f"data.sampler={PAIRS}"], {"decay": DECAY}),
    (
        "transface",
        [f"backbone={GATED}"],
        {"patches": "[1, 16]", "probability": SHARE, "strength": PART, "gamma": POSITIVE},
    ),
    ("triplet", [f"data.sampler={PAIRS}"], {"classification": WEIGHT}),
]
SUPPLIED = {"num_classes", "feat_dim"}
SHARED = {"ema"}  # the one of all modes, tested with the conventional one
CHOSEN = {"power", "student_stage", "teacher_stage", "stage"}  # one of a few, not a range
# Allowed by itself, but not beside the defaults of the others.
ALONE = {("occlusion", "area"), ("occlusion", "probability")}


def numbers(registry: Registry[Any], name: str) -> set[str]:
    """Options that are one number in a range."""
    parameters = registry.parameters(name)
    found = {option for option, one in parameters.items() if one.annotation in (int, float, int | None, float | None)}
    return found - SUPPLIED - CHOSEN


def test_no_number_is_left_out() -> None:
    for registry in (OBJECTIVES, DISTILLATIONS):
        for name in registry.names():
            wanted = set().union(*(spans for owner, other, spans in OF_LOSSES if (owner, other) == (registry, name)))
            assert numbers(registry, name) == wanted, name
    for name in MODES.names():
        wanted = set().union(*(spans for other, _, spans in OF_MODES if other == name))
        assert numbers(MODES, name) - SHARED == wanted - SHARED, name


@pytest.mark.parametrize(
    ("registry", "name", "option", "span"),
    [(registry, name, option, span) for registry, name, spans in OF_LOSSES for option, span in spans.items()],
)
def test_a_number_of_a_loss_is_taken_up_to_its_bounds_and_refused_beyond(
    registry: Registry[Any], name: str, option: str, span: str, edges: Edges
) -> None:
    parameters, shapes = registry.parameters(name), Shapes(8, ((4, 2, 2),))
    given = {"num_classes": 3, "feat_dim": 8, "student": shapes, "teacher": shapes, "rows": torch.eye(3, 8)}
    supplied = {key: value for key, value in given.items() if key in parameters}
    allowed, refused = edges(span, parameters[option].annotation is int)
    with torch.device("meta"):  # where a queue of a billion takes no memory
        for value in allowed:
            registry.get(name)(**{**supplied, option: value})
    words = rf"{option} is .*must lie in {re.escape(span)}"
    if name == "MarginDistillation":
        words = "must "  # each bound of an angle is the other one
    for value in refused:
        with pytest.raises(ConfigError, match=words):
            registry.get(name)(**{**supplied, option: value})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run to go on from."""
    folder = tmp_path_factory.mktemp("base") / "base"
    run_training(load_config(TINY, ["training.epochs=1"]), folder, Console(quiet=True))
    return folder


@pytest.mark.parametrize(
    ("name", "needs", "option", "span"),
    [(name, needs, option, span) for name, needs, spans in OF_MODES for option, span in spans.items()],
)
def test_a_number_of_a_mode_is_taken_up_to_its_bounds_and_refused_beyond(
    name: str, needs: list[str], option: str, span: str, edges: Edges, base: Path
) -> None:
    words = [f"mode={name}", *(word.replace("{base}", str(base)) for word in needs)]
    allowed, refused = edges(span, option in ("patches", "alternate"))
    for value in refused:
        if math.isfinite(value):  # others are refused wherever they stand
            with pytest.raises(ConfigError, match=rf"{option}\b.* is .*must lie in {re.escape(span)}"):
                assemble(load_config(TINY, [*words, f"mode.{name}.{option}={value!r}"]))
    for value in allowed:
        if (name, option) not in ALONE:
            assemble(load_config(TINY, [*words, f"mode.{name}.{option}={value!r}"]))
