"""ArcNegFace: negatives count by how near they are to the target with its margin."""

import math
from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import add_angle, check_angle
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("ArcNegFace")
class ArcNegFace(MarginHead):
    """Distribution distillation's ArcNegFace (Liu et al., ICCV workshops 2019), as in FaceX-Zoo's program.

    The target logit is ``s a`` with ``a = cos(theta + m)``, continued with ``cos(theta) - m sin(m)`` past pi. A
    negative gets ``s (t_j cos(theta_j) + t_j - 1)`` with ``t_j = alpha exp(-(cos(theta_j) - a)^2 / sigma)``: those near
    the target count more, far ones less. t_j carries no gradient, as in that program, which has alpha and sigma as
    constants.

    Args:
        margin: m, in radians, from 0 up to but not including pi / 2.
        scale: s, the norm given to the normalised features.
        alpha: Weight of a negative as near as the target, above 0.
        sigma: Width of the bell around the target, above 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="liu2019arcnegface",
        title="Towards Flops-constrained Face Recognition",
        authors="Liu, Yu and Song, Guanglu and Zhang, Manyuan and Liu, Jihao and Zhou, Yucong and Yan, Junjie",
        venue="ICCV Workshops",
        year=2019,
        arxiv="1909.00632",
    )

    def __init__(self, margin: float = 0.5, scale: float = 64.0, alpha: float = 1.2, sigma: float = 2.0) -> None:
        super().__init__(scale=scale)
        self.margin = check_angle("ArcNegFace margin", margin)
        self.alpha = in_range("ArcNegFace alpha", alpha, 0.0, math.inf, low_open=True, high_open=True)
        self.sigma = in_range("ArcNegFace sigma", sigma, 0.0, math.inf, low_open=True, high_open=True)

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample's angle plus m, (B,) -> (B,)."""
        return add_angle(target, target.new_full((), self.margin), "linear")

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """``t_j cos(theta_j) + t_j - 1`` for the classes of a chunk, (B, C) -> (B, C)."""
        nearest = self.positive(terms.target.detach(), terms).unsqueeze(1)
        weight = self.alpha * (-(cosine.detach() - nearest).square() / self.sigma).exp()
        # Stretched about -1, which stays at any weight; at a weight of 1 the cosine is as it was.
        return weight * cosine + weight - 1.0
