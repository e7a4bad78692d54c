"""SphereFace: the target's angle is multiplied."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import angle, monotone_cosine
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("SphereFace")
class SphereFace(MarginHead):
    """A-Softmax (Liu et al., CVPR 2017, arXiv:1704.08063, Eq. 6 and 7, with the annealing of its program).

    The target logit is ``||x|| (lambda cos(theta) + psi(theta)) / (1 + lambda)`` with
    ``psi(theta) = (-1)^k cos(m theta) - 2 k`` on ``[k pi / m, (k + 1) pi / m]``, all others ``||x|| cos(theta_j)``.
    lambda is ``largest_lambda / (1 + gamma n)`` in step n = 1, 2 …, but at least ``smallest_lambda``: training goes
    from plain cosines to the margin. n is kept in checkpoints and moves in training only. The paper does not mention
    lambda; the defaults are those of its program.

    Unlike the program, m need not be whole, and gradients are exact; there, the margin's gradient to the embedding is
    scaled to a fixed length. With normalised features (s instead of ``||x||``) it is `CombinedMargin` with m1, as the
    ArcFace paper compares it (entry ``SphereFace-Scaled``).

    Args:
        margin: m, the factor of the angle, 1 (no margin) to 5.
        largest_lambda: Before the first step, at least ``smallest_lambda``.
        smallest_lambda: At least 0 (the margin in full).
        gamma: How fast lambda falls, at least 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="liu2017sphereface",
        title="SphereFace: Deep Hypersphere Embedding for Face Recognition",
        authors="Liu, Weiyang and Wen, Yandong and Yu, Zhiding and Li, Ming and Raj, Bhiksha and Song, Le",
        venue="CVPR",
        year=2017,
        arxiv="1704.08063",
    )
    uses_norm: ClassVar[bool] = True
    steps: Tensor

    def __init__(
        self,
        margin: float = 4.0,
        largest_lambda: float = 1000.0,
        smallest_lambda: float = 5.0,
        gamma: float = 0.12,
    ) -> None:
        super().__init__(scale=1.0)
        self.margin = in_range("SphereFace margin", margin, 1.0, 5.0)
        self.smallest_lambda = in_range("SphereFace smallest_lambda", smallest_lambda, 0.0, math.inf, high_open=True)
        self.largest_lambda = in_range(
            "SphereFace largest_lambda", largest_lambda, smallest_lambda, math.inf, high_open=True
        )
        self.gamma = in_range("SphereFace gamma", gamma, 0.0, math.inf, high_open=True)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Counts the step, and adds ``lambda``, ()."""
        if self.training:
            self.steps += 1
        weight = (self.largest_lambda / (1.0 + self.gamma * self.steps)).clamp_min(self.smallest_lambda)
        return Terms(labels, target, norms, values={"lambda": weight.to(target.dtype)})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Norm times the annealed psi of each sample, (B,) -> (B,)."""
        weight = terms.values["lambda"]
        psi = monotone_cosine(self.margin * angle(target))
        return terms.norms * (weight * target + psi) / (1.0 + weight)

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """Norm times the cosines to the classes of a chunk, (B, C) -> (B, C)."""
        return terms.norms.unsqueeze(1) * cosine
