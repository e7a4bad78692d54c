"""UniFace: every sample is told apart from every class by one learned threshold."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("UniFace")
class UniFace(MarginHead):
    """Unified cross entropy (Zhou et al., ICCV 2023, UniFace).

    The loss of a sample is ``log(1 + exp(-(s (cos(theta) - m) - b))) + lambda sum_j log(1 + exp(s cos(theta_j) - b))``
    with one learned b for all classes: the threshold that tells all positive from all negative pairs. lambda balances
    the many negatives.

    b starts at ln(10 C), as in the authors' program. Unlike there, logits are not cut to +-s, so that none loses its
    gradient, and negatives are not sampled (r = 1).

    Args:
        num_classes: C, at least 2; known from the data.
        margin: m, from 0 to 1.
        scale: s, the norm given to the normalised features.
        negative_weight: lambda, above 0; the authors' ``l``.

    Attributes:
        threshold: b, (), learned.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="zhou2023uniface",
        title="UniFace: Unified Cross-Entropy Loss for Deep Face Recognition",
        authors="Zhou, Jiancan and Jia, Xi and Li, Qiufu and Shen, Linlin and Duan, Jinming",
        venue="ICCV",
        year=2023,
    )
    objective: ClassVar[Literal["softmax", "binary"]] = "binary"

    def __init__(
        self, num_classes: int, margin: float = 0.4, scale: float = 64.0, negative_weight: float = 1.0
    ) -> None:
        super().__init__(scale=scale)
        in_range("UniFace num_classes", num_classes, 2, math.inf)
        self.margin = in_range("UniFace margin", margin, 0.0, 1.0)
        self.negative_weight = in_range(
            "UniFace negative_weight", negative_weight, 0.0, math.inf, low_open=True, high_open=True
        )
        # The C negatives of a sample, at right angles, then cost C log(1 + exp(-b)), which is about 0.1, together.
        self.threshold = nn.Parameter(torch.tensor(math.log(10.0 * num_classes)))

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Adds ``threshold``: b / s, the cosine that tells positives from negatives, ()."""
        # Divided, because the loss multiplies what `positive` and `negatives` give by s.
        return Terms(labels, target, norms, values={"threshold": self.threshold / self.scale})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """``cos(theta) - m - b / s`` of each sample to its own class, (B,) -> (B,)."""
        return target - self.margin - terms.values["threshold"]

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """``cos(theta_j) - b / s`` for the classes of a chunk, (B, C) -> (B, C)."""
        return cosine - terms.values["threshold"]
