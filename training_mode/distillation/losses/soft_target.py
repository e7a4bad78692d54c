"""Hinton's soft targets, over class rows that are spread over the processes."""

import math
from typing import ClassVar

from torch import Tensor

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.reductions import log_sum_over_processes
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Need, Outputs, require_logits


@DISTILLATIONS.register("SoftTarget")
class SoftTarget(DistillationLoss):
    """``T^2 KL(teacher || student)`` of the softmax of ``logits / T`` (Hinton et al., arXiv:1503.02531).

    Logits are scaled cosines to the class rows, without margin: FaceX-Zoo leaves the margin on the target's logit of
    both, which hides how sure the teacher is.

    Args:
        temperature: T, above 0.

    Raises:
        ConfigError: If it is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="hinton2015distilling",
        title="Distilling the Knowledge in a Neural Network",
        authors="Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff",
        venue="arXiv preprint",
        year=2015,
        arxiv="1503.02531",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = in_range("SoftTarget temperature", temperature, 0.0, math.inf, low_open=True, high_open=True)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over the images of all processes, equal on each of them, ()."""
        return soft_target(require_logits(student), require_logits(teacher), self.temperature)


def soft_target(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL`` of the global batch, (), from the logits of the classes that this process owns, (B, C_own)."""
    student, teacher = student / temperature, teacher / temperature
    student_sum, teacher_sum = (log_sum_over_processes(one.logsumexp(dim=1)) for one in (student, teacher))
    probability = (teacher - teacher_sum.unsqueeze(1)).exp()
    apart = distributed.sum_shares((probability * (teacher - student)).sum(dim=1))
    return temperature**2 * (apart - teacher_sum + student_sum).mean()
