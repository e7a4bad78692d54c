"""Every number that a head or classifier takes: its range to the last digit, and the sentence where it ends."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from facelab.errors import ConfigError
from facelab.head.base import HEADS
from facelab.head.classifier import CLASSIFIERS
from facelab.head.margins.cosface import CosFace
from facelab.head.rows.full_softmax import FullSoftmax

Edges = Callable[[str, bool], tuple[list[float], list[float]]]
ANGLE, SHARE, POSITIVE, FACTOR = "[0, 1.5708)", "[0, 1]", "(0, inf)", "[1, 5]"
CASES: list[tuple[str, dict[str, Any], dict[str, str]]] = [  # a head, options that the case needs, range of each number
    ("AdaCos", {}, {"num_classes": "[3, inf]"}),
    ("AdaFace", {}, {"margin": SHARE, "concentration": "[0, inf)", "momentum": "(0, 1]", "scale": POSITIVE}),
    ("AdaM-Softmax", {}, {"scale": POSITIVE, "regularization": "[0, inf)"}),
    ("ArcFace", {"boundary": "constant"}, {"margin": ANGLE, "scale": POSITIVE, "boundary_margin": "[0, 2]"}),
    ("ArcNegFace", {}, {"margin": ANGLE, "scale": POSITIVE, "alpha": POSITIVE, "sigma": POSITIVE}),
    ("CircleLoss", {}, {"margin": SHARE, "gamma": POSITIVE}),
    (
        "CombinedMargin",
        {},
        {"m1": "(0, 5]", "m2": ANGLE, "m3": SHARE, "scale": POSITIVE, "filter_threshold": "[-1, 1]"},
    ),
    ("CosFace", {}, {"margin": SHARE, "scale": POSITIVE}),
    ("CurricularFace", {}, {"margin": ANGLE, "scale": POSITIVE, "momentum": "(0, 1]"}),
    ("ElasticFace", {}, {"margin": ANGLE, "deviation": "[0, 0.5]", "scale": POSITIVE, "seed": "[0, 2.14748e+09)"}),
    ("ElasticFace", {"variant": "cos"}, {"margin": SHARE}),
    ("MV-Softmax", {"variant": "am"}, {"margin": SHARE, "mv_weight": "[1, inf)", "scale": POSITIVE}),
    ("MV-Softmax", {"variant": "arc"}, {"margin": ANGLE}),
    ("MagCosFace", {}, {"scale": POSITIVE, "upper_norm": "(10, inf)", "regularization": "[0, inf)"}),
    ("MagCosFace", {}, {"upper_margin": "[0.35, 1)"}),
    ("MagCosFace", {"upper_margin": 0.9}, {"lower_margin": "[0, 0.9]"}),
    ("MagFace", {"boundary": "constant"}, {"scale": POSITIVE, "upper_norm": "(10, inf)", "boundary_margin": "[0, 2]"}),
    ("MagFace", {}, {"upper_margin": "[0.45, 1.5708)", "regularization": "[0, inf)"}),
    ("MagFace", {"upper_margin": 1.5}, {"lower_margin": "[0, 1.5]"}),
    ("NPCFace", {}, {"margin": ANGLE, "scale": POSITIVE, "m1": "[0, 0.4]", "t": "[1, inf)", "a": "[0, inf)"}),
    ("NPCFace", {"m1": 0.0}, {"m0": ANGLE}),
    ("Softmax", {"normalise": True}, {"scale": POSITIVE}),
    ("SphereFace", {}, {"margin": FACTOR, "largest_lambda": "[5, inf)", "gamma": "[0, inf)"}),
    ("SphereFace", {}, {"smallest_lambda": "[0, 1000]"}),
    ("SphereFace-R", {}, {"margin": FACTOR, "scale": POSITIVE}),
    ("SphereFace2", {}, {"num_classes": "[2, inf]", "margin": SHARE, "scale": POSITIVE, "balance": "(0, 1)"}),
    ("SphereFace2", {}, {"sharpness": "[1, inf)", "loss_weight": POSITIVE}),
    ("SphereFace2", {"variant": "A"}, {"margin": SHARE}),
    ("SphereFace2", {"variant": "M", "margin": 1.4}, {"margin": FACTOR}),
    ("UniFace", {}, {"num_classes": "[2, inf]", "margin": SHARE, "scale": POSITIVE, "negative_weight": POSITIVE}),
    ("X2-Softmax", {}, {"a": "(-inf, 0)", "h": "[-3.14159, 0]", "k": "(-1, 1]", "scale": POSITIVE}),
    ("MagFace", {}, {"lower_norm": "(0, 110)"}),
    ("MagCosFace", {}, {"lower_norm": "(0, 110)"}),
]
NUMBERS = [(name, needs, option, span) for name, needs, ranges in CASES for option, span in ranges.items()]
CLASSIFIER_NUMBERS = [("num_classes", "[2, inf]"), ("deviation", POSITIVE), ("rows_per_class", "[1, 1000]")]
# A bound that is another option: the refusal names the other one, or says how the two must stand.
BOUND_BY_ANOTHER = {
    *(("MagFace", option) for option in ("lower_norm", "lower_margin", "upper_margin")),
    *(("MagCosFace", option) for option in ("lower_norm", "lower_margin", "upper_margin")),
    ("SphereFace", "smallest_lambda"),
}


@pytest.mark.parametrize(("name", "needs", "option", "span"), NUMBERS)
def test_a_heads_number_is_taken_up_to_its_bounds_and_refused_beyond(
    name: str, needs: dict[str, Any], option: str, span: str, edges: Edges
) -> None:
    parameters = HEADS.parameters(name)
    supplied = {"num_classes": 7} if "num_classes" in parameters else {}
    allowed, refused = edges(span, parameters[option].annotation is int)
    for value in allowed:
        HEADS.get(name)(**{**supplied, **needs, option: value})
    words = "must " if (name, option) in BOUND_BY_ANOTHER else rf" {option} is .*, but must lie in {re.escape(span)}"
    for value in refused:
        with pytest.raises(ConfigError, match=words):
            HEADS.get(name)(**{**supplied, **needs, option: value})


def test_no_number_of_a_head_is_left_out() -> None:
    for name in HEADS.names():
        if HEADS.get(name).__module__.startswith("facelab."):
            numbers = {
                option
                for option, parameter in HEADS.parameters(name).items()
                if parameter.annotation in (int, float, float | None)
            }
            assert numbers == {option for owner, _, option, _ in NUMBERS if owner == name}, name


@pytest.mark.parametrize(("option", "span"), CLASSIFIER_NUMBERS)
def test_a_classifiers_number_is_taken_up_to_its_bounds_and_refused_beyond(
    option: str, span: str, edges: Edges
) -> None:
    supplied = {"num_classes": 4, "feat_dim": 3, "head": CosFace()}
    allowed, refused = edges(span, CLASSIFIERS.parameters("FullSoftmax")[option].annotation is int)
    for value in allowed:
        FullSoftmax(**{**supplied, option: value})
    for value in refused:
        with pytest.raises(ConfigError, match=rf"FullSoftmax {option} is .*must lie in {re.escape(span)}"):
            FullSoftmax(**{**supplied, option: value})
