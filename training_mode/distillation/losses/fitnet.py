"""Hints: a feature map of the student gives that of the teacher."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.training_mode.distillation.loss import DISTILLATIONS, Outputs, Shapes
from facelab.training_mode.distillation.maps import MapLoss


@DISTILLATIONS.register("FitNet")
class FitNet(MapLoss):
    """Mean squared difference of two feature maps (Romero et al., ICLR 2015, eq. 3).

    Where the maps differ in channels, a learned 1x1 convolution stands between them (the paper's regressor); where
    they differ in size, the larger one is averaged to the smaller.

    Args:
        student: Shapes of the student.
        teacher: Those of the teacher.
        student_stage: Which of the student's maps, from 0, or from -1 for the last.
        teacher_stage: Which of the teacher's.

    Raises:
        ConfigError: If a network has no such map.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="romero2015fitnets",
        title="FitNets: Hints for Thin Deep Nets",
        authors="Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and "
        "Gatta, Carlo and Bengio, Yoshua",
        venue="ICLR",
        year=2015,
        arxiv="1412.6550",
    )

    def __init__(self, student: Shapes, teacher: Shapes, student_stage: int = -1, teacher_stage: int = -1) -> None:
        super().__init__("FitNet", student, teacher, student_stage, teacher_stage)
        own, other = self.channels
        self.regressor = nn.Identity() if own == other else nn.Conv2d(own, other, 1, bias=False)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over images, channels and places, ()."""
        own, other = self.maps(student, teacher)
        return F.mse_loss(self.regressor(own), other)
