"""Relational distillation: distances and angles between the images of a batch."""

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Outputs, gathered, unit


@DISTILLATIONS.register("RKD")
class RKD(DistillationLoss):
    """Huber loss of distances between pairs and of angles within triplets (Park et al., CVPR 2019, eq. 4 to 9).

    Distances are divided by their mean in the batch. Embeddings may differ in length; they are taken on the unit
    sphere, where faces are compared. Losses are means over all pairs and triplets, as in the authors' program.

    Args:
        distance: Weight of the distances, from 0.
        angle: Weight of the angles, from 0; they take memory for batch^2 * D numbers on each process of its images.

    Raises:
        ConfigError: If a weight is negative, or both are 0.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="park2019relational",
        title="Relational Knowledge Distillation",
        authors="Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu",
        venue="CVPR",
        year=2019,
        arxiv="1904.05068",
    )

    def __init__(self, distance: float = 1.0, angle: float = 2.0) -> None:
        super().__init__()
        self.distance = in_range("RKD distance", distance, 0.0, math.inf, high_open=True)
        self.angle = in_range("RKD angle", angle, 0.0, math.inf, high_open=True)
        if not distance and not angle:
            raise ConfigError("RKD distance and angle are both 0, so nothing is learned; set one.")

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Weighted sum over the global batch, the mean over processes of which counts, ()."""
        own, other = unit(student.embedding), unit(teacher.embedding)
        own_all, other_all = gathered(own), gathered(other)
        loss = own.new_zeros(())
        if self.distance:
            loss = loss + self.distance * F.smooth_l1_loss(distances(own, own_all), distances(other, other_all))
        if self.angle:
            loss = loss + self.angle * F.smooth_l1_loss(angles(own, own_all), angles(other, other_all))
        return loss


def distances(anchor: Tensor, others: Tensor) -> Tensor:
    """Distances of anchors (A, D) to all images (B, D), over the mean distance of different images, (A, B)."""
    mean = _distances(others, others).sum() / (len(others) * (len(others) - 1))
    return _distances(anchor, others) / mean


def _distances(first: Tensor, second: Tensor) -> Tensor:
    square = (first.unsqueeze(1) - second).square().sum(dim=2)
    # The square root has no gradient at 0, the distance of an image to itself.
    return square.clamp_min(1e-12).sqrt() * (square > 0)


def angles(anchor: Tensor, others: Tensor) -> Tensor:
    """Cosine of the angle at each anchor (A, D) between two images of (B, D), (A, B, B)."""
    edges = F.normalize(others - anchor.unsqueeze(1), dim=2)
    return edges @ edges.mT
