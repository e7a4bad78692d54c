"""MagFace, Mag-CosFace, AdaFace and CurricularFace worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from facelab.errors import ConfigError
from facelab.head.base import MarginHead, Terms
from facelab.head.margins.adaface import AdaFace
from facelab.head.margins.curricularface import CurricularFace
from facelab.head.margins.mag_cosface import MagCosFace
from facelab.head.margins.magface import MagFace

COSINES = [0.8, 0.1, -0.2, 0.6]
NORMS = [5.0, 10.0, 60.0, 200.0]


def terms_of(head: MarginHead, cosines: list[float] = COSINES, norms: list[float] = NORMS) -> Terms:
    head.double()
    target = torch.tensor(cosines, dtype=torch.float64)
    return head.prepare(target, torch.tensor(norms, dtype=torch.float64), torch.zeros(len(cosines), dtype=torch.int64))


def positive(head: MarginHead) -> list[float]:
    terms = terms_of(head)
    values: list[float] = head.positive(terms.target, terms).tolist()
    return values


def test_magface() -> None:
    margins = [0.45, 0.45, 0.625, 0.8]
    expected = [math.cos(math.acos(cosine) + margin) for cosine, margin in zip(COSINES, margins, strict=True)]
    assert positive(MagFace()) == pytest.approx(expected)


def test_mag_cosface() -> None:
    margins = [0.35, 0.35, 0.575, 0.8]
    expected = [cosine - margin for cosine, margin in zip(COSINES, margins, strict=True)]
    assert positive(MagCosFace()) == pytest.approx(expected)


@pytest.mark.parametrize(("head", "weight"), [(MagFace(), 35.0), (MagCosFace(), 150.0)])
def test_pull_on_the_norms(head: MarginHead, weight: float) -> None:
    magnitudes = [10.0, 10.0, 60.0, 110.0]
    expected = weight * sum(a / 110**2 + 1 / a for a in magnitudes) / 4
    assert float(head.regularizer(terms_of(head))) == pytest.approx(expected)


def test_bounds_of_the_regularization_are_those_the_authors_print() -> None:
    assert MagFace().least_regularization == pytest.approx(22.59, abs=0.01)
    assert MagCosFace().least_regularization == pytest.approx(29.04, abs=0.01)


def test_a_larger_margin_pushes_the_norm_down_and_the_regulariser_up() -> None:
    head = MagFace().double()
    norms = torch.tensor([50.0], dtype=torch.float64, requires_grad=True)
    terms = head.prepare(torch.tensor([0.5], dtype=torch.float64), norms, torch.tensor([0]))
    (from_margin,) = torch.autograd.grad(-head.positive(terms.target, terms).sum(), norms, retain_graph=True)
    (from_pull,) = torch.autograd.grad(head.regularizer(terms), norms)
    assert float(from_margin) > 0 > float(from_pull)


def test_adaface_uses_the_statistics_of_the_batch() -> None:
    head = AdaFace(momentum=1.0)
    clipped = torch.tensor([5.0, 10.0, 60.0, 100.0], dtype=torch.float64)
    quality = (0.333 * (clipped - clipped.mean()) / (clipped.std() + 1e-3)).clamp(-1, 1).tolist()
    expected = [
        math.cos(math.acos(cosine) - 0.4 * g) - (0.4 + 0.4 * g) for cosine, g in zip(COSINES, quality, strict=True)
    ]
    assert positive(head) == pytest.approx(expected)


def test_adaface_is_arcface_for_bad_and_a_negative_angle_for_good_images() -> None:
    head = AdaFace(concentration=1000.0).double()
    terms = terms_of(head, [0.5, 0.5], [1.0, 100.0])
    low, high = head.positive(terms.target, terms).tolist()
    assert low == pytest.approx(math.cos(math.acos(0.5) + 0.4))
    assert high == pytest.approx(math.cos(math.acos(0.5) - 0.4) - 0.8)


def test_adaface_moves_its_statistics_by_the_momentum() -> None:
    head = AdaFace(momentum=0.1)
    terms_of(head, norms=[10.0, 20.0, 30.0, 40.0])
    assert float(head.mean_norm) == pytest.approx(0.9 * 20 + 0.1 * 25)
    assert float(head.norm_deviation) == pytest.approx(0.9 * 100 + 0.1 * torch.tensor([10.0, 20, 30, 40]).std().item())


def test_adaface_gives_the_norm_no_gradient() -> None:
    norms = torch.tensor(NORMS, requires_grad=True)
    assert not AdaFace().prepare(torch.tensor(COSINES), norms, torch.zeros(4)).values["quality"].requires_grad


def test_adaface_refuses_a_batch_of_one() -> None:
    with pytest.raises(ConfigError, match="AdaFace needs at least 2 images in a batch"):
        terms_of(AdaFace(), [0.5], [20.0])
    terms_of(AdaFace().eval(), [0.5], [20.0])


def test_curricularface_moves_t_before_it_is_used_and_then_modulates_hard_negatives() -> None:
    head = CurricularFace(margin=0.5, momentum=0.1).double()
    head.t.fill_(0.3)
    terms = terms_of(head, [0.8, 0.4], [1.0, 1.0])
    t = 0.9 * 0.3 + 0.1 * 0.6
    thresholds = [math.cos(math.acos(cosine) + 0.5) for cosine in (0.8, 0.4)]
    cosine = torch.tensor([[thresholds[0] + 0.01, thresholds[0] - 0.01], [0.2, -0.9]], dtype=torch.float64)
    expected = torch.tensor(
        [[cosine[0, 0] * (t + cosine[0, 0]), cosine[0, 1]], [0.2 * (t + 0.2), -0.9]], dtype=torch.float64
    )
    torch.testing.assert_close(head.negatives(cosine, terms), expected)
    assert float(head.t) == pytest.approx(t)


def test_curricularface_remembers_t_of_the_step() -> None:
    head = CurricularFace()
    first = terms_of(head)
    cosine = torch.full((4, 1), 0.9, dtype=torch.float64)
    before: Tensor = head.negatives(cosine, first)
    terms_of(head, [1.0, 1.0, 1.0, 1.0])
    assert head.negatives(cosine, first).equal(before)
