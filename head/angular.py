"""Angles added to cosines: margins with finite gradients everywhere, and what happens past theta + m = pi."""

import math
from typing import Literal

import torch
from torch import Tensor

from facelab.errors import ConfigError, in_range

Boundary = Literal["linear", "constant", "none", "easy"]
Gradient = Literal["exact", "straight_through"]

# 1 - cos^2 below which a sine has no gradient: the derivative of the square root is infinite at 0.
MIN_SQUARE = 1e-12
# Cosines nearer to 1 or -1 than this have no angle to differentiate; fp32 can just tell it from 1.
MIN_DISTANCE = 1e-7


def sine(cosine: Tensor) -> Tensor:
    """Sine of the angles in [0, pi] that have these cosines; the gradient is finite at -1 and 1."""
    # A product, not 1 - cos^2, whose square is rounded before the difference, so that near 1 few digits are left. The
    # clamp also counts where another branch of torch.where is taken: 0 times an infinite gradient is NaN.
    return ((1.0 - cosine) * (1.0 + cosine)).clamp_min(MIN_SQUARE).sqrt()


def angle(cosine: Tensor, distance: float = MIN_DISTANCE) -> Tensor:
    """Angles in (0, pi) of cosines clamped to ``distance`` from -1 and 1; the gradient is zero beyond."""
    return cosine.clamp(-1.0 + distance, 1.0 - distance).acos()


def add_angle(cosine: Tensor, margin: Tensor, boundary: Boundary, boundary_margin: float = 0.0) -> Tensor:
    """``cos(theta + m)`` of ``cosine = cos(theta)``.

    Where theta + m passes pi the curve turns upward again, so that a worse sample would cost less; ``boundary`` says
    what stands there instead.

    Args:
        cosine: (B,).
        margin: m in radians, () or (B,), 0 to pi.
        boundary: ``linear`` continues with ``cos(theta) - m sin(m)``, ``constant`` with ``cos(theta) -
            boundary_margin``, ``none`` follows the cosine; ``easy`` has the margin only where cos(theta) > 0 and
            leaves the cosine elsewhere.
        boundary_margin: See ``constant``.

    Returns:
        (B,), with the exact gradient in both arguments.
    """
    # By the addition theorem: acos has few digits near 1 and no gradient at 1, so cosines would have to be cut off.
    shifted = cosine * margin.cos() - sine(cosine) * margin.sin()
    if boundary == "none":
        return shifted
    if boundary == "easy":
        return torch.where(cosine > 0, shifted, cosine)
    # m sin(m) is at least 1 - cos(m) for m up to pi / 2, so the curve may drop at the boundary, but never rises.
    drop = margin * margin.sin() if boundary == "linear" else boundary_margin
    # theta + m < pi, told without an angle: cosines fall, and cos(pi - m) is -cos(m).
    return torch.where(cosine > -margin.cos(), shifted, cosine - drop)


def monotone_cosine(phi: Tensor) -> Tensor:
    """``(-1)^k cos(phi) - 2 k`` with k the number of whole pi in ``phi`` (SphereFace, Eq. 7): falls without a jump."""
    turns = (phi / math.pi).floor()
    sign = 1.0 - 2.0 * turns.remainder(2.0)
    return torch.addcmul(-2.0 * turns, sign, phi.cos())


def apply_gradient(changed: Tensor, cosine: Tensor, gradient: Gradient) -> Tensor:
    """``changed`` with its own gradient, or with that of ``cosine`` (InsightFace computes margins without autograd)."""
    # Its maintainers adopted that from OpenSphere, as more stable for ViTs.
    return changed if gradient == "exact" else cosine + (changed - cosine).detach()


def check_boundary_margin(head: str, boundary: Boundary, boundary_margin: float) -> float:
    """Return ``boundary_margin`` if it fits ``boundary``.

    Raises:
        ConfigError: If it is negative, or is given where ``boundary`` would ignore it.
    """
    if boundary_margin and boundary != "constant":
        raise ConfigError(f"{head} boundary_margin needs boundary 'constant', but boundary is '{boundary}'.")
    return in_range(f"{head} boundary_margin", boundary_margin, 0.0, 2.0)


def check_angle(what: str, margin: float) -> float:
    """Return a margin in radians if it lies from 0 up to but not including pi / 2.

    Raises:
        ConfigError: If it does not.
    """
    return in_range(what, margin, 0.0, math.pi / 2, high_open=True)
