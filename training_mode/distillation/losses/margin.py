"""Margin-aligned distillation: how sure the teacher is of an image decides how much the student must be."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.angular import add_angle, check_angle
from facelab.head.base import ClassShard, MarginHead, Terms
from facelab.head.candidates import Candidates, WholeProduct, cosines
from facelab.head.margin_loss import MarginLoss
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Need, Outputs, Shapes, unit


@DISTILLATIONS.register("MarginDistillation")
class MarginDistillation(DistillationLoss):
    """ArcFace over the frozen class rows of the teacher, with a margin for each image (Svitov and Alyamkin, 2020).

    The student learns the teacher's classes where they lie, and only as strictly as the teacher itself is right: with
    c the cosine between the teacher's embedding and the row of its class, ``m = smallest + (largest - smallest) c /
    max(c)``, the maximum over the batch, as in the authors' program. An image that the teacher does not know (c below
    0) has the smallest margin. It stands in place of a classification loss as well as beside one.

    Args:
        student: Shapes of the student.
        teacher: Those of the teacher.
        rows: The teacher's class rows that this process owns, (C_own, D).
        num_classes: C, over all processes.
        smallest: Least margin in radians, from 0.
        largest: Greatest margin, below pi / 2.
        scale: s, the norm given to the normalised embeddings.

    Raises:
        ConfigError: If embeddings differ in length, or an option is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="svitov2020margindistillation",
        title="MarginDistillation: Distillation for Margin-Based Softmax",
        authors="Svitov, David and Alyamkin, Sergey",
        venue="arXiv preprint",
        year=2020,
        arxiv="2003.02586",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"rows"})
    rows: Tensor

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        rows: Tensor,
        num_classes: int,
        smallest: float = 0.2,
        largest: float = 0.5,
        scale: float = 64.0,
    ) -> None:
        super().__init__()
        self.smallest = in_range("MarginDistillation smallest", smallest, 0.0, check_angle("largest", largest))
        self.largest = check_angle("MarginDistillation largest", largest)
        self.head_scale = in_range("MarginDistillation scale", scale, 0.0, math.inf, low_open=True, high_open=True)
        if student.embedding != teacher.embedding:
            raise ConfigError(
                f"MarginDistillation compares the student's embeddings of {student.embedding} numbers with class rows "
                f"of {teacher.embedding}; set backbone feat_dim: {teacher.embedding}."
            )
        self.num_classes = num_classes
        # A buffer moves with the loss; it comes from the teacher's run, so no checkpoint need keep it.
        self.register_buffer("rows", rows, persistent=False)
        self.shard = ClassShard.of_this_process(num_classes)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over the global batch, equal on all processes, ()."""
        features = distributed.gather_rows(student.embedding)
        label = distributed.gather_labels(label)
        candidates = Candidates(self.rows, *self.shard.columns(label))
        head = _GivenMargins(self._margins(distributed.gather_labels(teacher.embedding), candidates), self.head_scale)
        loss = MarginLoss(head, self.num_classes)
        return loss(features, label, candidates, WholeProduct(cosines(features, self.rows), candidates)).loss

    def _margins(self, embedding: Tensor, candidates: Candidates) -> Tensor:
        """Margin of each image of the global batch from its embedding by the teacher, (B, D) -> (B,)."""
        cosine = (unit(embedding) * unit(self.rows[candidates.column])).sum(dim=1)
        return given_margins(distributed.all_reduce_sum(cosine * candidates.owned), self.smallest, self.largest)


def given_margins(cosine: Tensor, smallest: float, largest: float) -> Tensor:
    """Margins from the teacher's cosines to the own class, (B,) -> (B,)."""
    known = cosine.clamp_min(0.0)
    return smallest + (largest - smallest) * known / known.max().clamp_min(torch.finfo(known.dtype).tiny)


class _GivenMargins(MarginHead):
    """ArcFace with a margin for each image of this step, (B,)."""

    def __init__(self, margin: Tensor, scale: float) -> None:
        super().__init__(scale)
        self.margin = margin

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        return add_angle(target, self.margin, "linear")
