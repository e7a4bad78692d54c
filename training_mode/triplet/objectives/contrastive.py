"""The contrastive loss with online selection of pairs."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range, one_of
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective
from facelab.training_mode.triplet.selection import mean_where, squared_distances

Negatives = Literal["all", "hardest"]
LEAST = 1e-12
"""Squared distance below which the root has no gradient, which is infinite at 0."""


@OBJECTIVES.register("Contrastive")
class Contrastive(Objective):
    """``(mean d + mean max(margin - sqrt(d), 0)^2) / 2`` over pairs (Hadsell et al., CVPR 2006).

    d are squared distances on the unit sphere, 0 to 4.

    Args:
        margin: Distance that images of two people should have, above 0 and up to 2; FaceX-Zoo's program takes more.
        negatives: ``all`` pairs of two people, or the ``hardest``: as many as there are pairs of one person, the
            nearest ones of the batch.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="hadsell2006dimensionality",
        title="Dimensionality Reduction by Learning an Invariant Mapping",
        authors="Hadsell, Raia and Chopra, Sumit and LeCun, Yann",
        venue="CVPR",
        year=2006,
    )

    def __init__(self, margin: float = 1.0, negatives: Negatives = "hardest") -> None:
        super().__init__()
        self.margin = in_range("Contrastive margin", margin, 0.0, 4.0, low_open=True)
        self.negatives = one_of("Contrastive negatives", negatives, get_args(Negatives))

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """Over the pairs of the global batch, ()."""
        distance = squared_distances(embedding)
        return contrastive(distance, label, self.margin, hardest=self.negatives == "hardest")


def contrastive(distance: Tensor, label: Tensor, margin: float, *, hardest: bool) -> Tensor:
    """The loss of squared distances (B, B) of images of classes (B,), ()."""
    same = label.unsqueeze(0) == label.unsqueeze(1)
    once = torch.ones_like(same).triu(1)
    positive, negative = same & once, ~same & once
    if hardest:
        negative &= _nearest(distance.detach(), negative, positive.sum())
    near = (margin - distance.clamp_min(LEAST).sqrt()).clamp_min(0.0).square()
    return (mean_where(distance, positive) + mean_where(near, negative)) / 2.0


def _nearest(distance: Tensor, pairs: Tensor, count: Tensor) -> Tensor:
    """The ``count`` () nearest of some pairs, bool, (B, B), without asking the device how many."""
    order = distance.masked_fill(~pairs, torch.inf).flatten().argsort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return (place < count).view_as(distance)
