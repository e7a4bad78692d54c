"""The tuplet margin loss."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import sine
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective
from facelab.training_mode.triplet.selection import positive_pairs


@OBJECTIVES.register("TupletMargin")
class TupletMargin(Objective):
    """``mean log(1 + sum_n exp(s (cos_an - cos(theta_ap - beta))))`` (Yu and Tao, ICCV 2019, eq. 9).

    Each image is the anchor of each other image of its person, and all images of other people are its negatives. The
    slack beta keeps the hardest positives from pulling without end. The paper's second loss, of the variance within
    people, is left out.

    Args:
        slack: beta in radians, 0 to pi / 2; the paper has 0.1.
        scale: s, above 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="yu2019tuplet",
        title="Deep Metric Learning with Tuplet Margin Loss",
        authors="Yu, Baosheng and Tao, Dacheng",
        venue="ICCV",
        year=2019,
    )

    def __init__(self, slack: float = 0.1, scale: float = 64.0) -> None:
        super().__init__()
        self.slack = in_range("TupletMargin slack", slack, 0.0, math.pi / 2)
        self.scale = in_range("TupletMargin scale", scale, 0.0, math.inf, low_open=True, high_open=True)

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """Mean over the pairs of the global batch, ()."""
        pairs = positive_pairs(label, both=True)
        if not len(pairs):
            return embedding.sum() * 0.0
        unit = F.normalize(embedding)
        cosine = unit @ unit.T
        anchor, positive = pairs.unbind(dim=1)
        own = cosine[anchor, positive]
        target = own * math.cos(self.slack) + sine(own) * math.sin(self.slack)
        other = label[anchor].unsqueeze(1) != label
        apart = self.scale * (cosine[anchor] - target.unsqueeze(1))
        # The 1 in the logarithm is a negative of difference 0.
        apart = F.pad(apart.masked_fill(~other, -torch.inf), (0, 1))
        return apart.logsumexp(dim=1).mean()
