"""Neuron selectivity transfer: what places of an image neurons look at."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.training_mode.distillation.loss import DISTILLATIONS, Outputs, Shapes
from facelab.training_mode.distillation.maps import MapLoss


@DISTILLATIONS.register("NST")
class NST(MapLoss):
    """Squared maximum mean discrepancy of the channels of two feature maps, mean over images.

    Each channel, a vector over places of norm 1, is a sample of what neurons look at; the kernel is ``(x . y)^2``
    (Huang and Wang, arXiv:1707.01219, eq. 5 and 9). Channels may differ in number; of maps of two sizes the larger is
    averaged to the smaller.

    Args:
        student: Shapes of the student.
        teacher: Those of the teacher.
        student_stage: Which of the student's maps, from 0, or from -1 for the last.
        teacher_stage: Which of the teacher's.

    Raises:
        ConfigError: If a network has no such map.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="huang2017like",
        title="Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
        authors="Huang, Zehao and Wang, Naiyan",
        venue="arXiv preprint",
        year=2017,
        arxiv="1707.01219",
    )

    def __init__(self, student: Shapes, teacher: Shapes, student_stage: int = -1, teacher_stage: int = -1) -> None:
        super().__init__("NST", student, teacher, student_stage, teacher_stage)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over images, ()."""
        return discrepancy(*self.maps(student, teacher))


def discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared discrepancy of the channels of maps (B, C_s, H, W) and (B, C_t, H, W), mean over images, ()."""
    own, other = (F.normalize(one.flatten(2), dim=2) for one in (student, teacher))
    return _kernel(other, other) + _kernel(own, own) - 2.0 * _kernel(own, other)


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.mT).square().mean()
