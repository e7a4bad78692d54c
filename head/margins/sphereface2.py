"""SphereFace2: one binary classifier for each class instead of a softmax over all."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import Gradient, angle, apply_gradient
from facelab.head.base import HEADS, MarginHead, Terms

MARGINS = {"C": (0.0, 1.0), "A": (0.0, 1.0), "M": (1.0, 5.0)}


@HEADS.register("SphereFace2")
class SphereFace2(MarginHead):
    """Binary classification (Wen et al., ICLR 2022, arXiv:2108.01513, Eq. 5).

    The loss of a sample is ``w / r (lambda log(1 + exp(-z)) + (1 - lambda) sum_j log(1 + exp(z_j)))``. With
    ``g(c) = 2 ((c + 1) / 2)^t - 1``, variant ``C`` has ``z = r (g(cos(theta)) - m) + b`` and
    ``z_j = r (g(cos(theta_j)) + m) + b``, variant ``A`` ``z = r g(cos(min(pi, theta + m))) + b`` and
    ``z_j = r g(cos(theta_j)) + b``, variant ``M`` the same with ``min(pi, m theta)``. b is one learned number; it
    starts where positives and negatives pull equally at right angles. w is the authors' loss weight.

    By default the margin and g change values only (``straight_through``), the paper's characteristic gradient
    detachment.

    Args:
        num_classes: C, at least 2; known from the data.
        variant: ``C``, a cosine margin, ``A``, an angular one, or ``M``, a factor of the angle.
        margin: m, from 0 to 1 for ``C``, in radians for ``A``; from 1 (no margin) to 5 for ``M``.
        scale: r, above 0.
        balance: lambda, the weight of positives, between 0 and 1.
        sharpness: t, at least 1 (g is the identity).
        loss_weight: w, above 0.
        gradient: ``straight_through`` or ``exact``.

    Attributes:
        bias_of_all: b, (), learned.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wen2022sphereface2",
        title="SphereFace2: Binary Classification is All You Need for Deep Face Recognition",
        authors="Wen, Yandong and Liu, Weiyang and Weller, Adrian and Raj, Bhiksha and Singh, Rita",
        venue="ICLR",
        year=2022,
        arxiv="2108.01513",
    )
    objective: ClassVar[Literal["softmax", "binary"]] = "binary"

    def __init__(
        self,
        num_classes: int,
        variant: Literal["C", "A", "M"] = "C",
        margin: float = 0.4,
        scale: float = 40.0,
        balance: float = 0.7,
        sharpness: float = 3.0,
        loss_weight: float = 50.0,
        gradient: Gradient = "straight_through",
    ) -> None:
        super().__init__(scale=scale)
        in_range("SphereFace2 num_classes", num_classes, 2, math.inf)
        self.variant = variant
        self.margin = in_range("SphereFace2 margin", margin, *MARGINS[variant])
        self.sharpness = in_range("SphereFace2 sharpness", sharpness, 1.0, math.inf, high_open=True)
        in_range("SphereFace2 balance", balance, 0.0, 1.0, low_open=True, high_open=True)
        weight = in_range("SphereFace2 loss_weight", loss_weight, 0.0, math.inf, low_open=True, high_open=True) / scale
        self.positive_weight, self.negative_weight = weight * balance, weight * (1.0 - balance)
        self.gradient: Gradient = gradient
        self.bias_of_all = nn.Parameter(torch.tensor(self._balanced(balance / ((1.0 - balance) * (num_classes - 1)))))

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Adds ``bias``: b / r, ()."""
        # Divided, because the loss multiplies what `positive` and `negatives` give by r.
        return Terms(labels, target, norms, values={"bias": self.bias_of_all / self.scale})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """``z / r`` of each sample to its own class, (B,) -> (B,)."""
        return apply_gradient(self._own(target), target, self.gradient) + terms.values["bias"]

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """``z_j / r`` for the classes of a chunk, (B, C) -> (B, C)."""
        return apply_gradient(self._other(cosine), cosine, self.gradient) + terms.values["bias"]

    def _own(self, target: Tensor) -> Tensor:
        if self.variant == "C":
            return self._similarity(target) - self.margin
        theta = angle(target)
        moved = theta + self.margin if self.variant == "A" else theta * self.margin
        return self._similarity(moved.clamp_max(math.pi).cos())

    def _other(self, cosine: Tensor) -> Tensor:
        return self._similarity(cosine) + (self.margin if self.variant == "C" else 0.0)

    def _similarity(self, cosine: Tensor) -> Tensor:
        """g, which spreads the cosines of positives and negatives apart."""
        # Rounding may leave a cosine below -1, and a negative number has no power 2.5.
        return 2.0 * ((cosine + 1.0) / 2.0).clamp_min(0.0).pow(self.sharpness) - 1.0

    def _balanced(self, ratio: float) -> float:
        """The b that solves ``ratio sigmoid(-z) = sigmoid(z_j)`` at right angles; the positive root of a quadratic."""
        # Where training starts: in many dimensions random embeddings are nearly at right angles to all rows.
        right = torch.zeros(1, dtype=torch.float64)
        own, other = (self.scale * float(value) for value in (self._own(right), self._other(right)))
        if ratio == 1.0:
            return -(own + other) / 2.0
        root = math.hypot(1.0 - ratio, 2.0 * math.sqrt(ratio) * math.exp((own - other) / 2.0))
        # Two forms of one root: the other one of each side is a difference of nearly equal numbers.
        if ratio > 1.0:
            return math.log((ratio - 1.0 + root) / 2.0) - own
        return math.log(2.0 * ratio / (1.0 - ratio + root)) - other
