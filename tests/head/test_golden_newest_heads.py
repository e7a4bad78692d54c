"""Heads of OpenSphere, and heads written anew from their formulas, give the same numbers in float64."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.head.base import MarginHead
from facelab.head.margins.arcface import ArcFace
from facelab.head.margins.combined_margin import CombinedMargin
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.elasticface import ElasticFace
from facelab.head.margins.softmax import Softmax
from facelab.head.margins.sphereface2 import SphereFace2
from facelab.head.margins.sphereface_r import SphereFaceR
from facelab.head.margins.uniface import UniFace
from facelab.head.margins.x2_softmax import X2Softmax
from facelab.head.rows.full_softmax import FullSoftmax

COPY = Path(__file__).resolve().parent.parent / "golden" / "newest_heads"
CLASSES = 24
# The formulas of the golden data take softplus for its argument above 20, which drops 2e-9 of it.
TOLERANCE = 1e-9

Conf = Mapping[str, Any]
Arrays = Mapping[str, Tensor]


def sphereface2(variant: Any) -> Callable[[Conf], MarginHead]:
    def build(conf: Conf) -> MarginHead:
        weight, gradient = (conf["lw"], "straight_through") if "lw" in conf else (1.0, "exact")
        options = {"loss_weight": weight, "gradient": gradient}
        return SphereFace2(CLASSES, variant, conf["m"], conf["r"], conf["alpha"], conf["t"], **options)

    return build


def sphereface(conf: Conf) -> MarginHead:
    return CombinedMargin(conf["m"], 0.0, 0.0, conf["s"], gradient="straight_through")


def sphereface_r(variant: Any, gradient: Any = "straight_through") -> Callable[[Conf], MarginHead]:
    return lambda conf: SphereFaceR(variant, conf["m"], conf["s"], gradient)


def elasticface(variant: Any) -> Callable[[Conf], MarginHead]:
    boundary: Any = "none" if variant == "arc" else "linear"
    return lambda conf: ElasticFace(variant, conf["mean"], conf["std"], scale=conf["s"], boundary=boundary)


OURS: dict[str, Callable[[Conf], MarginHead]] = {
    "SphereFace2": sphereface2("C"),
    "SphereFace2_config": sphereface2("C"),
    "SphereFace2_exact": sphereface2("C"),
    "SphereFace2_A": sphereface2("A"),
    "SphereFace2_M": sphereface2("M"),
    "SphereFace": sphereface,
    "SphereFace_m4": sphereface,
    "SphereFaceR_H_v0": sphereface_r("v0"),
    "SphereFaceR_H_v1": sphereface_r("v1"),
    "SphereFaceR_H_v2": sphereface_r("v2"),
    "SphereFaceR_v1": sphereface_r("v1", "exact"),
    "SphereFaceR_v1_detached": sphereface_r("v1"),
    "SphereFaceR_v2": sphereface_r("v2", "exact"),
    "CocoLoss": lambda conf: Softmax(normalise=True, scale=conf["s"]),
    "OpenSphere_ArcFace": lambda conf: ArcFace(conf["m"], conf["s"], "none", gradient="straight_through"),
    "OpenSphere_CosFace": lambda conf: CosFace(conf["m"], conf["s"]),
    "UniFace": lambda conf: UniFace(CLASSES, conf["m"], conf["s"], conf["lam"]),
    "ElasticFace_arc": elasticface("arc"),
    "ElasticFace_cos": elasticface("cos"),
    "X2-Softmax": lambda conf: X2Softmax(conf["a"], conf["h"], conf["k"], conf["s"]),
    "X2-Softmax_detached": lambda conf: X2Softmax(conf["a"], conf["h"], conf["k"], conf["s"], "straight_through"),
    "SubCenterArcFace": lambda conf: ArcFace(conf["m2"], conf["s"], "none"),
}


def read(folder: Path, name: str) -> tuple[Conf, Arrays]:
    """Options of one head; its arrays in float64, but for labels."""
    conf = json.loads((folder / "heads.json").read_text())[name]["conf"]
    with np.load(folder / "heads.npz") as stored:
        arrays = {
            key.removeprefix(f"{name}/"): torch.tensor(stored[key]) for key in stored if key.startswith(f"{name}/")
        }
    return conf, {key: value.double() if value.is_floating_point() else value for key, value in arrays.items()}


def classifier_of(head: MarginHead, arrays: Arrays) -> FullSoftmax:
    rows = arrays["weight"]
    model = FullSoftmax(CLASSES, rows.shape[-1], head, rows_per_class=rows.shape[1] if rows.ndim == 3 else 1).double()
    model.weight.data.copy_(rows)
    if "0/bias" in arrays:
        (threshold,) = head.parameters()
        threshold.data.copy_(arrays.get("0/bias_f64", arrays["0/bias"])[0])
    return model


def assert_near(given: Tensor | None, expected: Tensor, what: str) -> None:
    assert given is not None
    error = float((given - expected).norm() / expected.norm())
    assert error < TOLERANCE, f"{what}: relative error {error:.2e}"


def check(conf: Conf, arrays: Arrays, head: MarginHead, logits_of: Any, form: str = "0") -> None:
    """Compare logits, loss and gradients; ``form`` is where the expected values stand."""
    model = classifier_of(head, arrays)
    features, labels = arrays["0/features"].requires_grad_(), arrays["0/labels"]
    output = model(features, labels)
    output.loss.backward()
    if isinstance(head, ElasticFace):
        head.step.zero_()  # the same margins again
    logits = logits_of(head, features.detach(), arrays["weight"], labels, {}).detach()
    expected, loss = arrays[f"{form}/logits_f64"], output.loss.detach()
    if type(head) is ArcFace and "clamped" in conf["note"]:
        expected = with_ours_past_pi(expected, logits, labels)
    else:
        assert_near(loss * share(conf, head), arrays[f"{form}/loss_f64"], "loss")
    assert_near(logits, expected, "logits")
    assert features.grad is not None
    assert_near(features.grad * share(conf, head), arrays[f"{form}/grad_features_f64"], "gradient of the features")
    assert model.weight.grad is not None
    projected = f"{form}/grad_weight_projected_f64"
    rows = arrays[projected] if projected in arrays else arrays[f"{form}/grad_weight_f64"]
    assert_near(model.weight.grad * share(conf, head), rows, "gradient of the rows")
    if "0/bias" in arrays:
        (threshold,) = head.parameters()
        assert threshold.grad is not None
        assert_near(threshold.grad, arrays["0/grad_bias_f64"][0], "gradient of the threshold")


def with_ours_past_pi(expected: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """OpenSphere's ArcFace stays at -1 past pi, ours rises again; the gradients are those of the cosine in both."""
    own = torch.arange(len(labels)), labels
    past = expected[own] < -64.0 * (1.0 - 1e-9)
    assert 0 < int(past.sum()) < len(labels)
    assert bool((logits[own] > expected[own])[past].all())
    return expected.index_put(own, torch.where(past, logits[own], expected[own]))


def share(conf: Conf, head: MarginHead) -> float:
    """What the original multiplies a softmax loss by."""
    return conf["lw"] / conf["s"] if isinstance(head, SphereFaceR) and "lw" in conf else 1.0


def draw(monkeypatch: pytest.MonkeyPatch, conf: Conf, arrays: Arrays) -> None:
    """Make ElasticFace draw the recorded margins."""
    if "0/margins" in arrays:
        drawn = (arrays["0/margins"] - conf["mean"]) / conf["std"]
        monkeypatch.setattr("facelab.head.margins.elasticface.normal", lambda seed, step, size: drawn)


@pytest.mark.parametrize("name", OURS)
def test_head_gives_the_numbers(name: str, logits_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    conf, arrays = read(COPY, name)
    draw(monkeypatch, conf, arrays)
    check(conf, arrays, OURS[name](conf), logits_of)


@pytest.mark.parametrize("variant", ["arc", "cos"])
def test_elasticface_plus_gives_the_numbers(variant: Any, logits_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    conf, arrays = read(COPY, f"ElasticFace_{variant}")
    draw(monkeypatch, conf, arrays)
    boundary: Any = "none" if variant == "arc" else "linear"
    head = ElasticFace(variant, conf["mean"], conf["std"], plus=True, scale=conf["s"], boundary=boundary)
    check(conf, arrays, head, logits_of, "0/plus_hard")


@pytest.mark.parametrize("name", ["SphereFace2", "SphereFace2_config", "SphereFace2_A", "SphereFace2_M"])
def test_sphereface2_starts_with_the_authors_bias(name: str) -> None:
    conf, arrays = read(COPY, name)
    (bias,) = OURS[name](conf).parameters()
    assert float(bias.detach()) == pytest.approx(float(arrays["0/bias"]), rel=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("name", OURS)
def test_head_gives_the_numbers_of_the_golden_folder(
    name: str, golden_root: Path, logits_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, arrays = read(golden_root / "newest", name)
    draw(monkeypatch, conf, arrays)
    check(conf, arrays, OURS[name](conf), logits_of)


@pytest.mark.golden
def test_every_golden_head_is_compared(golden_root: Path) -> None:
    assert json.loads((golden_root / "newest" / "heads.json").read_text()).keys() == OURS.keys()
