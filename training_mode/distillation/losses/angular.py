"""VarGFaceNet's angular distillation."""

from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Outputs, Shapes, unit
from facelab.training_mode.distillation.loss import projection as _projection


@DISTILLATIONS.register("Angular")
class Angular(DistillationLoss):
    """Squared distance of embeddings on the unit sphere, ``mean ||t / |t| - s / |s| ||^2 = mean 2 (1 - cos)``.

    (Yan et al., VarGFaceNet, ICCV Workshops 2019, section 3.5, with weight 7 beside ArcFace.)

    Args:
        student: Shapes of the student.
        teacher: Those of the teacher.
        projection: Compare what a learned linear map makes of the student's embedding.

    Raises:
        ConfigError: If embeddings differ in length and there is no projection.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="yan2019vargfacenet",
        title="VarGFaceNet: An Efficient Variable Group Convolutional Neural Network for Lightweight Face Recognition",
        authors="Yan, Mengjia and Zhao, Mengao and Xu, Zining and Zhang, Qian and Wang, Guoli and Su, Zhizhong",
        venue="ICCV Workshops",
        year=2019,
        arxiv="1910.04985",
    )

    def __init__(self, student: Shapes, teacher: Shapes, projection: bool = False) -> None:
        super().__init__()
        self.projection = _projection("Angular", projection, student.embedding, teacher.embedding)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over the images, ()."""
        return angular(self.projection(student.embedding), teacher.embedding)


def angular(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of the directions of embeddings (B, D), ()."""
    return (unit(student) - unit(teacher)).square().sum(dim=1).mean()
