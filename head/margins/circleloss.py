"""CircleLoss: each cosine is weighted by how far it is from its optimum."""

from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("CircleLoss")
class CircleLoss(MarginHead):
    """Circle loss with class labels (Sun et al., CVPR 2020, arXiv:2002.10857, Eq. 6 to 8).

    The target logit is ``gamma a_p (cos(theta) - (1 - m))`` with ``a_p = max(0, 1 + m - cos(theta))``, the others are
    ``gamma a_n (cos(theta_j) - m)`` with ``a_n = max(0, cos(theta_j) + m)``. Both weights carry no gradient, as in the
    paper. With one positive a sample, the paper's softplus is this softmax cross entropy.

    Args:
        margin: m, from 0 to 1: targets are wanted above 1 - m, negatives below m.
        gamma: The scale of the logits, above 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="sun2020circle",
        title="Circle Loss: A Unified Perspective of Pair Similarity Optimization",
        authors="Sun, Yifan and Cheng, Changmao and Zhang, Yuhan and Zhang, Chi and Zheng, Liang and Wang, Zhongdao "
        "and Wei, Yichen",
        venue="CVPR",
        year=2020,
        arxiv="2002.10857",
    )

    def __init__(self, margin: float = 0.25, gamma: float = 256.0) -> None:
        super().__init__(scale=in_range("CircleLoss gamma", gamma, 0.0, float("inf"), low_open=True, high_open=True))
        self.margin = in_range("CircleLoss margin", margin, 0.0, 1.0)

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """``a_p (cos(theta) - (1 - m))`` of each sample to its own class, (B,) -> (B,)."""
        # With gamma = 256, logits reach from -1008 to 240. exp overflows fp32 past 88, so the loss stays in logarithms.
        weight = (1.0 + self.margin - target.detach()).clamp_min(0.0)
        return weight * (target - (1.0 - self.margin))

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """``a_n (cos(theta_j) - m)`` for the classes of a chunk, (B, C) -> (B, C)."""
        weight = (cosine.detach() + self.margin).clamp_min(0.0)
        return weight * (cosine - self.margin)
