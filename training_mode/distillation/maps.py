"""Feature maps of two networks: which are compared, and at what size."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from facelab.errors import ConfigError
from facelab.training_mode.distillation.loss import DistillationLoss, Need, Outputs, Shapes


class MapLoss(DistillationLoss):
    """The base of losses that compare one feature map of the student with one of the teacher.

    Args:
        name: Of the loss, for messages.
        student: Shapes of the student.
        teacher: Those of the teacher.
        student_stage: Which of the student's maps, from 0, or from -1 for the last.
        teacher_stage: Which of the teacher's.

    Attributes:
        channels: Those of the student's map and of the teacher's.
        size: Height and width at which they are compared: the smaller ones.

    Raises:
        ConfigError: If a network has no such map.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"maps"})

    def __init__(self, name: str, student: Shapes, teacher: Shapes, student_stage: int, teacher_stage: int) -> None:
        super().__init__()
        own = chosen_map(name, student_stage, student, "student")
        other = chosen_map(name, teacher_stage, teacher, "teacher")
        self.channels = own[0], other[0]
        self.size = min(own[1], other[1]), min(own[2], other[2])
        self._stages = student_stage, teacher_stage

    def maps(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """The student's map, (B, C_s, H, W), and the teacher's, (B, C_t, H, W), at one size."""
        own, other = self._stages
        return pooled(student.maps[own], self.size), pooled(teacher.maps[other], self.size)


def chosen_map(loss: str, stage: int, shapes: Shapes, whose: str) -> tuple[int, int, int]:
    """Shape (C, H, W) of the feature map that an option names, from 0, or from -1 for the last.

    Raises:
        ConfigError: If the network has none of that number.
    """
    count = len(shapes.maps)
    if not -count <= stage < count:
        raise ConfigError(
            f"{loss} stage is {stage}, but the {whose} has {count} feature maps; count from 0, or from -1."
        )
    return shapes.maps[stage]


def pooled(feature_map: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (B, C, H, W) averaged to a smaller size; itself if it has that."""
    return feature_map if tuple(feature_map.shape[2:]) == size else F.adaptive_avg_pool2d(feature_map, size)
