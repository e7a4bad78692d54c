"""Heads give the numbers of the original programs: logits, loss, regulariser and gradients, over two steps.

Ours are float64, which depends on no processor; the stored originals are fp32.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.head.base import MarginHead
from facelab.head.margins.adacos import AdaCos
from facelab.head.margins.adaface import AdaFace
from facelab.head.margins.adam_softmax import AdaMSoftmax
from facelab.head.margins.arcface import ArcFace
from facelab.head.margins.arcnegface import ArcNegFace
from facelab.head.margins.circleloss import CircleLoss
from facelab.head.margins.combined_margin import CombinedMargin
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.curricularface import CurricularFace
from facelab.head.margins.magface import MagFace
from facelab.head.margins.mv_softmax import MVSoftmax
from facelab.head.margins.npcface import NPCFace

COPY = Path(__file__).resolve().parent.parent / "golden" / "heads"
TOLERANCE = 1e-5  # of a row: 5.6e-6 is the most that an original is off, in a gradient of CurricularFace
ROUNDING = 1e-7  # of the largest row

Conf = Mapping[str, Any]


def combined(conf: Conf) -> MarginHead:
    """InsightFace's program: m3 > 0 means CosFace, whatever m2 says; otherwise ArcFace without autograd."""
    threshold = conf["interclass_filtering_threshold"] or None
    m2 = 0.0 if conf["m3"] > 0 else conf["m2"]
    return CombinedMargin(conf["m1"], m2, conf["m3"], conf["s"], threshold, "none", "straight_through")


def magface(conf: Conf) -> MarginHead:
    return MagFace(
        scale=conf["s"] if "s" in conf else conf["scale"],
        lower_norm=conf["l_a"],
        upper_norm=conf["u_a"],
        lower_margin=conf["l_margin"],
        upper_margin=conf["u_margin"],
        regularization=conf["lambda_g"] if "lambda_g" in conf else conf["lamda"],
        boundary="constant" if "margin_am" in conf else "easy" if conf["easy_margin"] else "linear",
        boundary_margin=conf.get("margin_am", 0.0),
    )


def adaface(conf: Conf) -> MarginHead:
    return AdaFace(margin=conf["m"], concentration=conf["h"], scale=conf["s"], momentum=conf["t_alpha"])


def mv_softmax(conf: Conf) -> MarginHead:
    return MVSoftmax("am" if conf["is_am"] else "arc", conf["margin"], conf["mv_weight"], conf["scale"])


def npcface(conf: Conf) -> MarginHead:
    return NPCFace(conf["margin"], conf["scale"], conf["m0"], conf["m1"], conf["t"], conf["a"])


OURS: dict[str, Callable[[Conf], MarginHead]] = {
    "AM-Softmax": lambda conf: CosFace(conf["margin"], conf["scale"]),
    "ArcFace_facexzoo": lambda conf: ArcFace(conf["margin_arc"], conf["scale"], "constant", conf["margin_am"]),
    "CurricularFace": lambda conf: CurricularFace(conf["m"], conf["s"]),
    "MagFace_facexzoo": magface,
    "AdaFace_t1": adaface,
    "AdaFace_ema": adaface,
    "MagFace_easy": magface,
    "MagFace": magface,
    "ArcNegFace": lambda conf: ArcNegFace(conf["margin"], conf["scale"], conf["alpha"], conf["sigma"]),
    "CircleLoss": lambda conf: CircleLoss(conf["margin"], conf["gamma"]),
    "MV-Softmax_am": mv_softmax,
    "MV-Softmax_arc": mv_softmax,
    "NPCFace": npcface,
    "AdaM-Softmax": lambda conf: AdaMSoftmax(conf["scale"], conf["lamda"]),
    "AdaCos": lambda conf: AdaCos(conf["num_classes"]),
    "Combined_arcface": combined,
    "Combined_cosface": combined,
    "Combined_cosface_filter04": combined,
}


@dataclass(frozen=True)
class Golden:
    """Recorded steps of one original head."""

    conf: Conf
    steps: int
    arrays: Mapping[str, Tensor]


def read(folder: Path, name: str) -> Golden:
    entry = json.loads((folder / "heads.json").read_text())[name]
    with np.load(folder / "heads.npz") as stored:
        arrays = {key.partition("/")[2]: torch.tensor(stored[key]) for key in stored if key.startswith(f"{name}/")}
    arrays = {key: value.double() if value.is_floating_point() else value for key, value in arrays.items()}
    return Golden({**entry["conf"], "num_classes": len(arrays["weight"])}, entry["steps"], arrays)


def assert_near(given: Tensor, expected: Tensor, what: str) -> None:
    """Row by row, because gradients of long embeddings are small.

    Rows that vanish beside the largest are rounding in the original: there 1 - p of a sample that is learned loses its
    digits.
    """
    assert given.dtype == torch.float64, "compared in a precision that depends on the machine"
    rows = ((given - expected).view(1, -1), expected.view(1, -1)) if expected.ndim < 2 else (given - expected, expected)
    difference, size = (matrix.norm(dim=1) for matrix in rows)
    excess = (difference - TOLERANCE * size - ROUNDING * size.max()).max()
    assert excess <= 0, f"{what}: relative error {float((difference / size).max()):.2e}"


def class_margins(conf: Conf, classes: int) -> Tensor:
    """A margin for each class as AdaM-Softmax's options tell it: ``linspace(0.3,0.4,C), clamped to [0,1]``."""
    low, high, smallest, largest = map(float, re.findall(r"\d+(?:\.\d+)?", conf.get("margins", "0, 0, 0, 1")))
    return torch.linspace(low, high, classes, dtype=torch.float64).clamp(smallest, largest)


def check(golden: Golden, head: MarginHead, classifier_of: Any, logits_of: Any) -> None:
    classifier = classifier_of(head, golden.arrays["weight"])
    margins = class_margins(golden.conf, len(classifier.weight))
    for values in classifier.class_parameters.values():
        values.data.copy_(margins)
    for step in range(golden.steps):
        recorded = {key.partition("/")[2]: value for key, value in golden.arrays.items() if key.startswith(f"{step}/")}
        features, labels = recorded["features"].requires_grad_(), recorded["labels"]
        logits = logits_of(
            copy.deepcopy(head), features.detach(), golden.arrays["weight"], labels, {"margin": margins[labels]}
        )
        classifier.zero_grad()
        output = classifier(features, labels)
        output.loss.backward()
        assert_near(logits, recorded["logits"], f"logits of step {step}")
        assert_near(output.loss.detach(), recorded["loss"], f"loss of step {step}")
        assert_near(output.metrics["regularizer"], recorded["extra"], f"regulariser of step {step}")
        assert features.grad is not None
        assert_near(features.grad, recorded["grad_features"], f"gradient of the features in step {step}")
        if "grad_margins" in recorded:
            gradient = classifier.class_parameters["margin"].grad
            assert gradient is not None
            assert_near(gradient, recorded["grad_margins"], f"gradient of the margins in step {step}")
        assert_near(classifier.weight.grad, recorded["grad_weight"], f"gradient of the rows in step {step}")


@pytest.mark.parametrize("name", OURS)
def test_head_gives_the_original_numbers(name: str, classifier_of: Any, logits_of: Any) -> None:
    golden = read(COPY, name)
    check(golden, OURS[name](golden.conf), classifier_of, logits_of)


@pytest.mark.golden
@pytest.mark.parametrize("name", OURS)
def test_head_gives_the_numbers_of_the_golden_folder(
    name: str, golden_root: Path, classifier_of: Any, logits_of: Any
) -> None:
    golden = read(golden_root, name)
    check(golden, OURS[name](golden.conf), classifier_of, logits_of)


@pytest.mark.golden
def test_every_golden_head_is_compared(golden_root: Path) -> None:
    assert json.loads((golden_root / "heads.json").read_text()).keys() == OURS.keys()
