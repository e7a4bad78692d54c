"""Three margins in one formula, worked by hand; SphereFace's monotone curve; the filter for noisy classes."""

import math

import pytest
import torch
from torch import Tensor

from facelab.head.base import MarginHead, Terms
from facelab.head.margins.arcface import ArcFace
from facelab.head.margins.combined_margin import CombinedMargin
from facelab.head.margins.cosface import CosFace

COSINES = torch.tensor([-0.99, -0.6, 0.1, 0.7, 0.98], dtype=torch.float64)


def positive(head: MarginHead, target: Tensor = COSINES) -> Tensor:
    labels = torch.zeros(len(target), dtype=torch.int64)
    return head.positive(target, head.prepare(target, torch.ones_like(target), labels))


@pytest.mark.parametrize("margins", [(1.0, 0.3, 0.2), (0.9, 0.4, 0.15), (1.35, 0.0, 0.0), (4.0, 0.0, 0.1)])
def test_all_three_margins_count(margins: tuple[float, float, float]) -> None:
    m1, m2, m3 = margins
    expected = [math.cos(m1 * math.acos(cosine) + m2) - m3 for cosine in COSINES.tolist()]
    assert positive(CombinedMargin(*margins, boundary="none")).tolist() == pytest.approx(expected)


def test_it_is_arcface_and_cosface() -> None:
    torch.testing.assert_close(positive(CombinedMargin(1, 0.5, 0, boundary="none")), positive(ArcFace(boundary="none")))
    torch.testing.assert_close(positive(CombinedMargin(1, 0, 0.4)), positive(CosFace(0.4)))


@pytest.mark.parametrize("m1", [1.0, 1.35, 2.0, 4.0])
@pytest.mark.parametrize("m2", [0.0, 0.5])
def test_monotone_curve(m1: float, m2: float) -> None:
    cosines = torch.linspace(-0.9999, 0.9999, 2001, dtype=torch.float64)
    curve = positive(CombinedMargin(m1, m2, 0.0), cosines)
    assert bool((curve.diff() > 0).all())
    assert float(curve.diff().max()) < 0.1  # no jump


def test_sphereface_by_hand() -> None:
    theta = 2.5  # 4 theta = 10 lies between 3 pi and 4 pi
    target = torch.tensor([math.cos(theta)], dtype=torch.float64)
    assert positive(CombinedMargin(4.0, 0.0, 0.0), target).tolist() == pytest.approx([-math.cos(10.0) - 6.0])


def test_straight_through_leaves_the_gradient_of_the_cosine() -> None:
    target = COSINES.clone().requires_grad_()
    head = CombinedMargin(1.0, 0.5, 0.1, gradient="straight_through")
    (gradient,) = torch.autograd.grad(positive(head, target).sum(), target)
    assert gradient.tolist() == pytest.approx([1.0] * len(COSINES))


def test_filter_silences_negatives_above_the_threshold() -> None:
    cosine = torch.tensor([[0.5, 0.3, -0.7]], requires_grad=True)
    none = torch.zeros(1)
    filtered = CombinedMargin(filter_threshold=0.4).negatives(cosine, Terms(none.long(), none, none))
    (gradient,) = torch.autograd.grad(filtered.sum(), cosine)
    assert filtered[0].tolist() == pytest.approx([0.0, 0.3, -0.7])
    assert gradient.tolist() == [[0.0, 1.0, 1.0]]
