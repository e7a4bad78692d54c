"""Every head's logits over the whole range of cosines, against its formula in plain arithmetic."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from facelab.head.base import HEADS, MarginHead, Terms

# Targets past the boundary of every margin, on both sides of 0, and near 1; norms below, within and above all clamps.
TARGETS = [-0.999, -0.95, -0.3, 0.0, 0.2, 0.35, 0.6, 0.98, 0.9996]
NORMS = [0.0005, 5.0, 10.0, 20.0, 40.0, 60.0, 99.0, 110.0, 300.0]
OTHERS = [-1.0, -0.7, 0.0, 0.15, 0.25, 0.4, 0.9, 1.0]
CLASSES = 7


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        cosine: To its own class.
        norm: Of its embedding.
    """

    cosine: float
    norm: float

    @property
    def theta(self) -> float:
        return math.acos(self.cosine)

    def turned(self, margin: float) -> float:
        """cos(theta + m)."""
        return math.cos(self.theta + margin)

    def continued(self, margin: float) -> float:
        """The same, past pi cos(theta) - m sin(m)."""
        return self.turned(margin) if self.theta + margin < math.pi else self.cosine - margin * math.sin(margin)


def monotone(phi: float) -> float:
    k = math.floor(phi / math.pi)
    return (-1) ** k * math.cos(phi) - 2 * k


def angle(cosine: float) -> float:
    """Angles stay off 0 and pi, where they have no gradient."""
    return math.acos(min(max(cosine, -1 + 1e-7), 1 - 1e-7))


def g(cosine: float, t: float = 3.0) -> float:
    return 2 * ((cosine + 1) / 2) ** t - 1


def magnitude(low: float, high: float) -> Callable[[Sample], float]:
    return lambda s: low + (high - low) * (min(max(s.norm, 10.0), 110.0) - 10.0) / 100.0


def ada(sample: Sample) -> float:
    """Quality of AdaFace with a mean of 20 and a deviation of 100, as at its start."""
    return min(max(2.0 * (min(max(sample.norm, 1e-3), 100.0) - 20.0) / (100.0 + 1e-3), -1.0), 1.0)


def adaface(s: Sample) -> float:
    theta = math.acos(min(max(s.cosine, -0.999), 0.999))
    return math.cos(min(max(theta - 0.4 * ada(s), 1e-3), math.pi - 1e-3)) - (0.4 + 0.4 * ada(s))


def npc_margin(s: Sample) -> float:
    hard = [c for c in OTHERS if c > s.turned(0.35)]
    return 0.4 + 0.2 * (sum(hard) / len(hard) if hard else 0.0)


def npcface(s: Sample) -> float:
    return s.turned(npc_margin(s)) if s.cosine > 0 else s.cosine


def bell(s: Sample, other: float) -> float:
    weight = 1.2 * math.exp(-((other - s.continued(0.5)) ** 2) / 2.0)
    return weight * other + weight - 1.0


def same(s: Sample, other: float) -> float:
    return other


Own = Callable[[Sample], float]
Other = Callable[[Sample, float], float]
# Name, options, logit of the own class and of another one, both without the scale.
CURVES: list[tuple[str, dict[str, Any], Own, Other]] = [
    ("Softmax", {"normalise": True}, lambda s: s.cosine, same),
    ("CosFace", {}, lambda s: s.cosine - 0.4, same),
    ("ArcFace", {}, lambda s: s.continued(0.5), same),
    ("ArcFace", {"boundary": "none"}, lambda s: s.turned(0.5), same),
    ("ArcFace", {"boundary": "easy"}, lambda s: s.turned(0.5) if s.cosine > 0 else s.cosine, same),
    (
        "ArcFace",
        {"boundary": "constant", "boundary_margin": 0.1},
        lambda s: s.turned(0.5) if s.theta + 0.5 < math.pi else s.cosine - 0.1,
        same,
    ),
    ("CombinedMargin", {"m1": 1.2, "m2": 0.3, "m3": 0.1}, lambda s: monotone(1.2 * s.theta + 0.3) - 0.1, same),
    (
        "CombinedMargin",
        {"m1": 0.9, "m2": 0.4, "m3": 0.15, "boundary": "none", "filter_threshold": 0.4},
        lambda s: math.cos(0.9 * s.theta + 0.4) - 0.15,
        lambda s, other: 0.0 if other > 0.4 else other,
    ),
    (
        "SphereFace",
        {"smallest_lambda": 3.0},  # 1000 / (1 + 0.12 * 5000) is less
        lambda s: s.norm * (3 * s.cosine + monotone(4 * s.theta)) / 4,
        lambda s, other: s.norm * other,
    ),
    ("SphereFace-R", {"variant": "v0"}, lambda s: monotone(1.4 * s.theta), same),
    ("SphereFace-R", {}, lambda s: math.cos(min(1.4 * s.theta, math.pi)), same),
    ("SphereFace-R", {"variant": "v2"}, lambda s: s.cosine, lambda s, other: math.cos(angle(other) / 1.4)),
    ("SphereFace2", {}, lambda s: g(s.cosine) - 0.4 + 0.25, lambda s, other: g(other) + 0.4 + 0.25),
    (
        "SphereFace2",
        {"variant": "A", "sharpness": 2.0},
        lambda s: g(math.cos(min(s.theta + 0.4, math.pi)), 2.0) + 0.25,
        lambda s, other: g(other, 2.0) + 0.25,
    ),
    (
        "SphereFace2",
        {"variant": "M", "margin": 1.4},
        lambda s: g(math.cos(min(1.4 * s.theta, math.pi))) + 0.25,
        lambda s, other: g(other) + 0.25,
    ),
    ("UniFace", {}, lambda s: s.cosine - 0.4 - 10 / 64, lambda s, other: other - 10 / 64),
    ("X2-Softmax", {"h": -0.1}, lambda s: -0.9 * (s.theta + 0.1) ** 2 + 0.65, same),
    (
        "CircleLoss",
        {},
        lambda s: max(0.0, 1.25 - s.cosine) * (s.cosine - 0.75),
        lambda s, other: max(0.0, other + 0.25) * (other - 0.25),
    ),
    ("ArcNegFace", {}, lambda s: s.continued(0.5), bell),
    ("AdaM-Softmax", {}, lambda s: s.cosine - 0.33, same),
    ("AdaCos", {}, lambda s: 12.0 * s.cosine, lambda s, other: 12.0 * other),
    ("ElasticFace", {}, lambda s: s.continued(0.5), same),
    ("ElasticFace", {"boundary": "none", "margin": 0.3}, lambda s: s.turned(0.3), same),
    ("ElasticFace", {"variant": "cos"}, lambda s: s.cosine - 0.5, same),
    ("MagFace", {}, lambda s: s.continued(magnitude(0.45, 0.8)(s)), same),
    ("MagCosFace", {}, lambda s: s.cosine - magnitude(0.35, 0.8)(s), same),
    ("AdaFace", {"concentration": 2.0}, adaface, same),
    (
        "CurricularFace",
        {},
        lambda s: s.continued(0.5),
        lambda s, other: other * (0.3 + other) if other > s.turned(0.5) else other,
    ),
    (
        "MV-Softmax",
        {},
        lambda s: s.cosine - 0.35 if s.cosine > 0.35 else s.cosine,
        lambda s, other: 1.12 * other + 0.12 if other > s.cosine - 0.35 else other,
    ),
    (
        "MV-Softmax",
        {"variant": "arc"},
        lambda s: s.turned(0.35) if s.cosine > 0 else s.cosine,
        lambda s, other: 1.12 * other + 0.12 if other > s.turned(0.35) else other,
    ),
    ("NPCFace", {}, npcface, lambda s, other: 1.1 * other + 0.2 if other > s.turned(0.35) else other),
]


def settled(head: MarginHead, targets: list[float], norms: list[float]) -> tuple[Terms, torch.Tensor]:
    """Terms of the samples in evaluation, what a head remembers put to plain numbers; and the cosines to others."""
    remembered = {"t": 0.3, "adaptive_scale": 12.0, "steps": 5000, "bias_of_all": 10.0, "threshold": 10.0}
    head.double().eval()
    for name, value in {**dict(head.named_buffers()), **dict(head.named_parameters())}.items():
        value.data.fill_(remembered.get(name, float(value.detach())))
    target = torch.tensor(targets, dtype=torch.float64)
    cosine = torch.tensor(OTHERS, dtype=torch.float64).repeat(len(target), 1)
    terms = head.prepare(target, torch.tensor(norms, dtype=torch.float64), torch.zeros(len(target), dtype=torch.int64))
    terms = replace(terms, own={"margin": torch.full_like(target, 0.33)})
    sums = head.statistics(cosine, terms, torch.ones_like(cosine, dtype=torch.bool))
    return head.use_statistics(replace(terms, statistics=sums)), cosine


@pytest.mark.parametrize(("name", "options", "own", "other"), CURVES)
def test_logits_are_those_of_the_formula(name: str, options: dict[str, Any], own: Own, other: Other) -> None:
    head = HEADS.build(name, options, num_classes=CLASSES)
    terms, cosine = settled(head, TARGETS, NORMS)
    samples = [Sample(*pair) for pair in zip(TARGETS, NORMS, strict=True)]
    assert head.positive(terms.target, terms).tolist() == pytest.approx([own(s) for s in samples], abs=1e-9)
    given = head.negatives(cosine, terms).tolist()
    for sample, row in zip(samples, given, strict=True):
        assert row == pytest.approx([other(sample, value) for value in OTHERS], abs=1e-9)


@pytest.mark.parametrize(("name", "options", "own", "other"), CURVES)
def test_logits_at_the_ends_and_beyond_are_those_of_the_formula_there(
    name: str, options: dict[str, Any], own: Own, other: Other
) -> None:
    """Rounding takes cosines past 1 and -1; angles stay 4.5e-4 off 0 and pi, so that their gradient is finite."""
    head = HEADS.build(name, options, num_classes=CLASSES)
    targets, norms = [-1.0 - 1e-9, -1.0, 1.0, 1.0 + 1e-9], [2.0, 2.0, 2.0, 2.0]
    terms, _ = settled(head, targets, norms)
    ends = [Sample(math.copysign(1.0, target), norm) for target, norm in zip(targets, norms, strict=True)]
    target = terms.target.clone().requires_grad_()
    given = head.positive(target, terms)
    assert given.tolist() == pytest.approx([own(end) for end in ends], abs=3e-3)
    (gradient,) = torch.autograd.grad(given.sum(), target)
    assert bool(gradient.isfinite().all())


def test_every_head_has_a_curve() -> None:
    ours = {name for name in HEADS.names() if HEADS.get(name).__module__.startswith("facelab.")}
    assert {name for name, *_ in CURVES} == ours
