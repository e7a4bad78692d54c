"""Logits of the student as near as possible to those of the teacher."""

from typing import ClassVar

from torch import Tensor

from facelab import distributed
from facelab.citation import Citation
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Need, Outputs, require_logits


@DISTILLATIONS.register("SNN-MIMIC")
class SNNMimic(DistillationLoss):
    """Mean squared difference of logits over images and classes (Ba and Caruana, NeurIPS 2014, eq. 1).

    Logits are scaled cosines to the class rows, without margin.

    Args:
        num_classes: C, over all processes.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="ba2014deep",
        title="Do Deep Nets Really Need to be Deep?",
        authors="Ba, Jimmy and Caruana, Rich",
        venue="NeurIPS",
        year=2014,
        arxiv="1312.6184",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over the images of all processes and all classes, equal on each process, ()."""
        return mimic(require_logits(student), require_logits(teacher), self.num_classes)


def mimic(student: Tensor, teacher: Tensor, num_classes: int) -> Tensor:
    """Mean squared difference of the logits of all classes, of which this process has (B, C_own), ()."""
    share = (student - teacher).square().sum(dim=1)
    return distributed.sum_shares(share).mean() / num_classes
