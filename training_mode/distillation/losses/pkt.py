"""Probabilistic knowledge transfer: whose images are how near to whose."""

from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Outputs, gathered

EPS = 1e-6
"""Of the authors' program: added to norms and to probabilities."""


@DISTILLATIONS.register("PKT")
class PKT(DistillationLoss):
    """Kullback-Leibler divergence of the similarities within a batch (Passalis and Tefas, ECCV 2018, eq. 2 to 4, 8).

    Cosines, moved to 0..1 and divided by the sum of their row, are the probabilities with which an image chooses the
    others. Embeddings may differ in length. As in the authors' program, an image also chooses itself, and the mean over
    all pairs stands where the paper has the sum; values are small, so the weight is large.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="passalis2018learning",
        title="Learning Deep Representations with Probabilistic Knowledge Transfer",
        authors="Passalis, Nikolaos and Tefas, Anastasios",
        venue="ECCV",
        year=2018,
        arxiv="1803.10837",
    )

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over all pairs of the global batch, ()."""
        return pkt(gathered(student.embedding), gathered(teacher.embedding))


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of ``p_t log(p_t / p_s)`` over all pairs of embeddings, (B, D_s) and (B, D_t) -> ()."""
    own, other = _neighbours(student), _neighbours(teacher)
    return (other * torch.log((other + EPS) / (own + EPS))).mean()


def _neighbours(embedding: Tensor) -> Tensor:
    """Probability with which each image chooses each, (B, B)."""
    unit = embedding / (torch.linalg.vector_norm(embedding, dim=1, keepdim=True) + EPS)
    similarity = (unit @ unit.T + 1.0) / 2.0
    chosen: Tensor = similarity / similarity.sum(dim=1, keepdim=True)
    return chosen
