"""Factor transfer: a translation of the student's map gives a paraphrase of the teacher's."""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.training_mode.distillation.loss import DISTILLATIONS, Outputs, Shapes
from facelab.training_mode.distillation.maps import MapLoss

SLOPE = 0.1
"""Of the leaky ReLUs, as in the authors' program."""


@DISTILLATIONS.register("FT")
class FactorTransfer(MapLoss):
    """Mean absolute difference of normalised factors (Kim et al., NeurIPS 2018, eq. 2 to 4).

    A paraphraser learns to restore the teacher's last map from a factor with fewer channels; a translator makes such a
    factor of the student's. The paper trains the paraphraser first and freezes it; here it learns in the same run, from
    its reconstruction alone, so that one run is enough.

    Args:
        student: Shapes of the student.
        teacher: Those of the teacher.
        rate: k, channels of a factor for each channel of the teacher, above 0 and up to 1.
        student_stage: Which of the student's maps, from 0, or from -1 for the last.
        teacher_stage: Which of the teacher's.

    Raises:
        ConfigError: If a network has no such map, or the rate is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="kim2018paraphrasing",
        title="Paraphrasing Complex Network: Network Compression via Factor Transfer",
        authors="Kim, Jangho and Park, SeongUk and Kwak, Nojun",
        venue="NeurIPS",
        year=2018,
        arxiv="1802.04977",
    )

    def __init__(
        self, student: Shapes, teacher: Shapes, rate: float = 0.5, student_stage: int = -1, teacher_stage: int = -1
    ) -> None:
        super().__init__("FT", student, teacher, student_stage, teacher_stage)
        in_range("FT rate", rate, 0.0, 1.0, low_open=True)
        own, other = self.channels
        factor = max(1, round(rate * other))
        self.paraphraser = _layers(other, other, factor, factor)
        self.restoration = _layers(factor, factor, other, other)
        self.translator = _layers(own, own, factor, factor)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Mean over the numbers of a factor, and how badly the teacher's map is restored, ()."""
        own, other = self.maps(student, teacher)
        factor = self.paraphraser(other)
        restored = F.mse_loss(self.restoration(factor), other)
        # The paraphraser must not come to meet the student: both would agree on a factor that says nothing.
        return factor_transfer(self.translator(own), factor.detach()) + restored


def factor_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of factors (B, C, H, W), each divided by its norm, ()."""
    own, other = (F.normalize(one.flatten(1), dim=1) for one in (student, teacher))
    return torch.mean((own - other).abs())


def _layers(*channels: int) -> nn.Sequential:
    """3x3 convolutions with BatchNorm and leaky ReLU between maps of these channels."""
    parts = []
    for inputs, outputs in pairwise(channels):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*parts)
