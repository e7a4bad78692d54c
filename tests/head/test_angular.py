"""Angles added to cosines: values, both sides of the boundary, exact gradients, finite gradients at -1 and 1."""

import math
from typing import get_args

import pytest
import torch

from facelab.errors import ConfigError
from facelab.head.angular import Boundary, add_angle, angle, apply_gradient, check_boundary_margin, sine

BOUNDARIES = get_args(Boundary)
MARGIN = torch.tensor(0.5, dtype=torch.float64)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_before_the_boundary_the_angle_grows_by_the_margin(boundary: Boundary) -> None:
    cosine = torch.tensor([0.9, 0.3, 0.01], dtype=torch.float64)
    expected = [math.cos(math.acos(value) + 0.5) for value in cosine.tolist()]
    assert add_angle(cosine, MARGIN, boundary, 0.1).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        ("linear", -0.95 - 0.5 * math.sin(0.5)),
        ("constant", -0.95 - 0.1),
        ("none", math.cos(math.acos(-0.95) + 0.5)),
        ("easy", -0.95),
    ],
)
def test_past_the_boundary(boundary: Boundary, expected: float) -> None:
    cosine = torch.tensor([-0.95], dtype=torch.float64)  # arccos is 2.82, plus 0.5 is more than pi
    assert float(add_angle(cosine, MARGIN, boundary, 0.1)) == pytest.approx(expected)


def test_linear_boundary_is_monotone() -> None:
    cosine = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    assert bool((add_angle(cosine, MARGIN, "linear").diff() > 0).all())


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_in_cosine_and_margin_are_exact(boundary: Boundary) -> None:
    cosine = torch.tensor([-0.99, -0.93, -0.8, 0.2, 0.97], dtype=torch.float64, requires_grad=True)
    margin = torch.tensor([0.1, 0.8, 0.5, 0.45, 0.6], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda c, m: add_angle(c, m, boundary, 0.1), (cosine, margin))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_are_finite_at_the_ends(boundary: Boundary, dtype: torch.dtype) -> None:
    cosine = torch.tensor(
        [-1.0 - 1e-7, -1.0, -1.0 + 1e-7, 1.0 - 1e-7, 1.0, 1.0 + 1e-7], dtype=dtype, requires_grad=True
    )
    curve = add_angle(cosine, torch.tensor(0.5, dtype=dtype), boundary) + angle(cosine)
    (gradient,) = torch.autograd.grad(curve.sum(), cosine)
    assert bool(gradient.isfinite().all())
    assert bool(sine(cosine).isfinite().all())


def test_straight_through_keeps_the_value_and_the_gradient_of_the_cosine() -> None:
    cosine = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    value = apply_gradient(add_angle(cosine, MARGIN, "none"), cosine, "straight_through")
    (gradient,) = torch.autograd.grad(value, cosine)
    assert value.tolist() == pytest.approx([math.cos(math.acos(0.3) + 0.5)])
    assert float(gradient) == 1.0


def test_a_margin_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(ConfigError, match="X boundary_margin needs boundary 'constant', but boundary is 'linear'"):
        check_boundary_margin("X", "linear", 0.1)
