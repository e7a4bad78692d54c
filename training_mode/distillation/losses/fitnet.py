"""Hints: a feature map of the student gives that of the teacher."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.training_mode.distillation.loss import (
    DISTILLATIONS,
    DistillationLoss,
    Need,
    Outputs,
    Shapes,
    chosen_map,
    pooled,
    smaller_size,
)


@DISTILLATIONS.register("FitNet")
class FitNet(DistillationLoss):
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
    needs: ClassVar[frozenset[Need]] = frozenset({"maps"})

    def __init__(self, student: Shapes, teacher: Shapes, student_stage: int = -1, teacher_stage: int = -1) -> None:
        super().__init__()
        own = chosen_map("FitNet", student_stage, student, "student")
        other = chosen_map("FitNet", teacher_stage, teacher, "teacher")
        self.stages = student_stage, teacher_stage
        self.size = smaller_size(own, other)
        same = own[0] == other[0]
        self.regressor = nn.Identity() if same else nn.Conv2d(own[0], other[0], 1, bias=False)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over images, channels and places, ()."""
        own, other = (
            pooled(one.maps[stage], self.size) for one, stage in zip((student, teacher), self.stages, strict=True)
        )
        return F.mse_loss(self.regressor(own), other)
