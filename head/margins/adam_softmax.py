"""AdaM-Softmax: each class learns its own margin."""

import math
from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.base import HEADS, ClassParameter, MarginHead, Terms


@HEADS.register("AdaM-Softmax")
class AdaMSoftmax(MarginHead):
    """Adaptive margin (Liu et al., CVPR 2019, AdaptiveFace, Eq. 4 to 6).

    The target logit is ``s (cos(theta) - m_y)`` with a learned margin for each class, all others ``s cos(theta_j)``.
    ``lambda (1 - mean m)`` over all classes is added to the loss: poor classes get large margins where that is cheap.
    As in FaceX-Zoo's program, the regulariser is ``1 - mean m`` (the paper has ``-mean m``, the same gradient), and
    margins start between 0.3 and 0.4 and are put back into [0, 1] before each training step.

    Margins are owned, sharded and stored with the class rows.

    Args:
        scale: s, the norm given to the normalised features.
        regularization: lambda, FaceX-Zoo's ``lamda``, at least 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="liu2019adaptiveface",
        title="AdaptiveFace: Adaptive Margin and Sampling for Face Recognition",
        authors="Liu, Hao and Zhu, Xiangyu and Lei, Zhen and Li, Stan Z.",
        venue="CVPR",
        year=2019,
    )

    def __init__(self, scale: float = 32.0, regularization: float = 70.0) -> None:
        super().__init__(scale=scale)
        self.regularization = in_range("AdaM-Softmax regularization", regularization, 0.0, math.inf, high_open=True)
        self.class_parameters = {"margin": ClassParameter(0.3, 0.4, smallest=0.0, largest=1.0)}

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample to its own class less that class's margin, (B,) -> (B,)."""
        return target - terms.own["margin"]

    def regularizer(self, terms: Terms) -> Tensor:
        """``lambda (1 - mean m)``, ()."""
        return self.regularization * (1.0 - terms.means["margin"])
