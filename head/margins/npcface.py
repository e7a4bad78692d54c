"""NPCFace: samples with hard negatives get a larger margin, and hard negatives larger logits."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import add_angle, check_angle
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("NPCFace")
class NPCFace(MarginHead):
    """Negative-positive collaboration (Zeng et al., arXiv:2007.10172), with the constants of FaceX-Zoo's program.

    A negative is hard if ``cos(theta_j) > cos(theta + m)``; it gets ``s (t cos(theta_j) + a)``, others
    ``s cos(theta_j)``. The target logit is ``s cos(theta + m_i)`` with ``m_i = m0 + m1 mean(cos(theta_j))``, the mean
    over the sample's hard negatives (0 if it has none); where ``cos(theta) <= 0`` the cosine is left as it is.
    The choice and m_i carry no gradient, as in that program.

    Args:
        margin: m of the choice of hard negatives, in radians, from 0 up to but not including pi / 2.
        scale: s, the norm given to the normalised features.
        m0: Margin of a sample without hard negatives, in radians, in the same range.
        m1: What the mean cosine adds to it, from 0 to m0.
        t: Factor of a hard negative's cosine, at least 1.
        a: Added to it, at least 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="zeng2020npcface",
        title="NPCFace: Negative-Positive Collaborative Training for Large-scale Face Recognition",
        authors="Zeng, Dan and Shi, Hailin and Du, Hang and Wang, Jun and Lei, Zhen and Mei, Tao",
        venue="arXiv preprint",
        year=2020,
        arxiv="2007.10172",
    )

    def __init__(
        self,
        margin: float = 0.35,
        scale: float = 32.0,
        m0: float = 0.4,
        m1: float = 0.2,
        t: float = 1.1,
        a: float = 0.2,
    ) -> None:
        super().__init__(scale=scale)
        self.margin = check_angle("NPCFace margin", margin)
        self.m0 = check_angle("NPCFace m0", m0)
        self.m1 = in_range("NPCFace m1", m1, 0.0, m0)
        self.t = in_range("NPCFace t", t, 1.0, math.inf, high_open=True)
        self.a = in_range("NPCFace a", a, 0.0, math.inf, high_open=True)

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Adds ``threshold``: the cosine above which a negative is hard, (B,)."""
        threshold = add_angle(target.detach(), target.new_full((), self.margin), "none")
        return Terms(labels, target, norms, values={"threshold": threshold})

    def statistics(self, cosine: Tensor, terms: Terms, negative: Tensor) -> Mapping[str, Tensor]:
        """Sum of the cosines of each sample's hard negatives, and how many they are; both (B,)."""
        # Multiplied as masks where both are bool, which takes a quarter of the memory.
        hard = (self._hard(cosine, terms) * negative).to(cosine.dtype)
        return {"sum": (cosine * hard).sum(dim=1), "count": hard.sum(dim=1)}

    def use_statistics(self, terms: Terms) -> Terms:
        """Adds ``margin``: m_i of each sample, (B,)."""
        mean = terms.statistics["sum"] / terms.statistics["count"].clamp_min(1.0)
        return replace(terms, values={**terms.values, "margin": self.m0 + self.m1 * mean})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample's angle plus m_i, (B,) -> (B,)."""
        return add_angle(target, terms.values["margin"], "easy")

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """Cosines to the classes of a chunk, the hard ones ``t cos(theta_j) + a``, (B, C) -> (B, C)."""
        return torch.where(self._hard(cosine, terms), self.t * cosine + self.a, cosine)

    def _hard(self, cosine: Tensor, terms: Terms) -> Tensor:
        return cosine > terms.values["threshold"].unsqueeze(1)
