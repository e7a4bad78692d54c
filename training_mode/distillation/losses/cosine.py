"""The cosine between a student's embedding and its teacher's."""

from torch import Tensor
from torch.nn import functional as F

from facelab.errors import ConfigError
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Outputs, Shapes
from facelab.training_mode.distillation.loss import projection as _projection


@DISTILLATIONS.register("Cosine")
class Cosine(DistillationLoss):
    """``mean (1 - cos)``, or ``mean (1 - cos)^2`` with ``power: 2``, which looks at the images that are far off.

    (The square is the one of ShrinkTeaNet, Duong et al., arXiv:1905.10620, eq. 6.)

    Args:
        student: Shapes of the student.
        teacher: Those of the teacher.
        power: 1 or 2.
        projection: Compare what a learned linear map makes of the student's embedding.

    Raises:
        ConfigError: If embeddings differ in length and there is no projection.
    """

    def __init__(self, student: Shapes, teacher: Shapes, power: int = 1, projection: bool = False) -> None:
        super().__init__()
        if power not in (1, 2):
            raise ConfigError(f"Cosine power is {power}, but must be 1 or 2.")
        self.power = power
        self.projection = _projection("Cosine", projection, student.embedding, teacher.embedding)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over the images, ()."""
        apart = 1.0 - F.cosine_similarity(self.projection(student.embedding), teacher.embedding)
        return apart.pow(self.power).mean()
