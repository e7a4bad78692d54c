"""X2-Softmax: the target's logit is a parabola of its angle."""

import math
from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import Gradient, angle, apply_gradient
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("X2-Softmax")
class X2Softmax(MarginHead):
    """Margin that grows with the angle (Xu et al., Expert Systems with Applications 2024, arXiv:2312.05281).

    The target logit is ``s (a (theta - h)^2 + k)``, all others ``s cos(theta_j)``. The defaults are those of the
    authors' training command, ``64 -0.9 0.0 0.65``. Their program computes the curve without autograd
    (``gradient: straight_through``); here the gradient is exact by default. The parabola falls on [0, pi] only if its
    top is at or before 0, so h is not positive.

    Args:
        a: Curvature, below 0.
        h: Angle of the parabola's top in radians, -pi to 0.
        k: Value at the top, above -1 up to 1.
        scale: s, the norm given to the normalised features.
        gradient: ``exact``, or ``straight_through``: the margin changes the value only.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="xu2024x2softmax",
        title="X2-Softmax: Margin Adaptive Loss Function for Face Recognition",
        authors="Xu, Jiamu and Liu, Xiaoxiang and Zhang, Xinyuan and Si, Yain-Whar and Li, Xiaofan and Shi, Zheng and "
        "Wang, Ke and Gong, Xueyuan",
        venue="Expert Systems with Applications",
        year=2024,
        arxiv="2312.05281",
    )

    def __init__(
        self, a: float = -0.9, h: float = 0.0, k: float = 0.65, scale: float = 64.0, gradient: Gradient = "exact"
    ) -> None:
        super().__init__(scale=scale)
        self.a = in_range("X2-Softmax a", a, -math.inf, 0.0, low_open=True, high_open=True)
        self.h = in_range("X2-Softmax h", h, -math.pi, 0.0)
        self.k = in_range("X2-Softmax k", k, -1.0, 1.0, low_open=True)
        self.gradient = gradient

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """``a (theta - h)^2 + k`` of each sample to its own class, (B,) -> (B,)."""
        curve = self.a * (angle(target) - self.h).square() + self.k
        return apply_gradient(curve, target, self.gradient)
