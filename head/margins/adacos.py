"""AdaCos: softmax of cosines whose scale follows training, without a margin or an option."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import angle
from facelab.head.base import HEADS, MarginHead, Terms

# Where negatives all lie at cosines of 1 or -1 the formula runs off; no published training comes near these bounds.
SCALE_RANGE = (1.0, 64.0)


@HEADS.register("AdaCos")
class AdaCos(MarginHead):
    """Adaptive scale (Zhang et al., CVPR 2019, arXiv:1905.00292, Eq. 13 to 15).

    All logits are ``s cos(theta_j)``. s starts at ``sqrt(2) ln(C - 1)``; each step sets it to
    ``ln(B) / cos(min(pi / 4, theta_med))`` before it is used, with B the batch mean of
    ``sum over negatives of exp(s cos(theta_j))`` at the last s and theta_med the median angle to the targets (the lower
    of two middle ones). It carries no gradient.

    The scale belongs to the global batch, is equal on all processes, kept in checkpoints, and moves in training only.
    Unlike the published programs, it is kept between 1 and 64.

    Args:
        num_classes: C, at least 3; known from the data.

    Raises:
        ConfigError: If there are fewer classes.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="zhang2019adacos",
        title="AdaCos: Adaptively Scaling Cosine Logits for Effectively Learning Deep Face Representations",
        authors="Zhang, Xiao and Zhao, Rui and Qiao, Yu and Wang, Xiaogang and Li, Hongsheng",
        venue="CVPR",
        year=2019,
        arxiv="1905.00292",
    )
    adaptive_scale: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(scale=1.0)
        in_range("AdaCos num_classes", num_classes, 3, math.inf)
        start = max(SCALE_RANGE[0], math.sqrt(2.0) * math.log(num_classes - 1))
        self.register_buffer("adaptive_scale", torch.tensor(min(start, SCALE_RANGE[1])))

    def statistics(self, cosine: Tensor, terms: Terms, negative: Tensor) -> Mapping[str, Tensor]:
        """Sum of the exponentials of the negatives at the last scale, ()."""
        # The scale is at most 64, and exp(64) is 6e27: fp32 holds the sum of 5e10 of the largest terms.
        return {"sum": ((self.adaptive_scale * cosine).exp() * negative).sum()}

    def use_statistics(self, terms: Terms) -> Terms:
        """Moves the scale, and adds it as ``scale``, ()."""
        if self.training:
            self.adaptive_scale.copy_(self._next_scale(terms))
        # A copy: the next forward pass moves the buffer in place, and may come before this one's backward pass.
        return replace(terms, values={**terms.values, "scale": self.adaptive_scale.clone()})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """``s cos(theta)`` of each sample to its own class, (B,) -> (B,)."""
        return terms.values["scale"] * target

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """``s cos(theta_j)`` for the classes of a chunk, (B, C) -> (B, C)."""
        return terms.values["scale"] * cosine

    def _next_scale(self, terms: Terms) -> Tensor:
        mean = terms.statistics["sum"] / terms.target.numel()
        # At first all angles lie near pi / 2, whose cosine would send the scale to infinity.
        median = angle(terms.target.detach()).median().clamp_max(math.pi / 4)
        return (mean.log() / median.cos()).clamp(*SCALE_RANGE)
