"""Flow of the solution procedure: how a network gets from one stage to the next."""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.errors import ConfigError
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Need, Outputs, Shapes
from facelab.training_mode.distillation.maps import chosen_map, pooled

LAST = (-4, -3, -2, -1)


@DISTILLATIONS.register("FSP")
class FSP(DistillationLoss):
    """Mean squared difference of the Gram matrices between consecutive stages (Yim et al., CVPR 2017, eq. 1 and 2).

    Entry (i, j) of a matrix is the mean over places of channel i of a stage times channel j of the next; the finer map
    is averaged to the coarser first. Both networks must have the same channels at these stages.

    Args:
        student: Shapes of the student.
        teacher: Those of the teacher.
        student_stages: At least two of the student's maps in their order, from 0, or from -1 for the last.
        teacher_stages: As many of the teacher's.

    Raises:
        ConfigError: If a network has no such maps, or their channels differ.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="yim2017gift",
        title="A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
        authors="Yim, Junho and Joo, Donggyu and Bae, Jihoon and Kim, Junmo",
        venue="CVPR",
        year=2017,
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"maps"})

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        student_stages: tuple[int, ...] = LAST,
        teacher_stages: tuple[int, ...] = LAST,
    ) -> None:
        super().__init__()
        if len(student_stages) != len(teacher_stages) or len(student_stages) < 2:
            raise ConfigError(
                f"FSP student_stages and teacher_stages are {list(student_stages)} and {list(teacher_stages)}, but "
                "must be equally many, and two at least."
            )
        channels = [
            [chosen_map("FSP", stage, shapes, whose)[0] for stage in stages]
            for stages, shapes, whose in (
                (student_stages, student, "student"),
                (teacher_stages, teacher, "teacher"),
            )
        ]
        if channels[0] != channels[1]:
            raise ConfigError(
                f"FSP compares matrices of channels, but the student has {channels[0]} channels at its stages and the "
                f"teacher {channels[1]}; choose networks or stages with as many, or FitNet, NST or FT."
            )
        self.student_stages, self.teacher_stages = student_stages, teacher_stages

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over images, matrices and their entries, ()."""
        own = [student.maps[stage] for stage in self.student_stages]
        other = [teacher.maps[stage] for stage in self.teacher_stages]
        pairs = zip(pairwise(own), pairwise(other), strict=True)
        losses = [F.mse_loss(flow(*first), flow(*second)) for first, second in pairs]
        return torch.stack(losses).mean()


def flow(fine: Tensor, coarse: Tensor) -> Tensor:
    """Gram matrices (B, C_1, C_2) between maps (B, C_1, H, W) and (B, C_2, h, w), means over the places."""
    size = coarse.shape[2], coarse.shape[3]
    first, second = pooled(fine, size).flatten(2), coarse.flatten(2)
    return first @ second.mT / first.shape[2]
