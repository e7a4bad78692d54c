"""MV-Softmax: misclassified negatives weigh more, and the target has the margin of CosFace or ArcFace."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import add_angle, check_angle
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("MV-Softmax")
class MVSoftmax(MarginHead):
    """Misclassified vectors guide the softmax (Wang et al., AAAI 2020, arXiv:1912.00833, Eq. 6 to 8).

    With f the target's cosine with margin, ``cos(theta) - m`` (``am``) or ``cos(theta + m)`` (``arc``), a negative is
    misclassified if ``cos(theta_j) > f``; it gets ``s (w cos(theta_j) + w - 1)``, others ``s cos(theta_j)``. The
    choice itself has no gradient.

    As in FaceX-Zoo's program, the target keeps its cosine without margin where ``cos(theta) <= m`` (``am``) or
    ``cos(theta) <= 0`` (``arc``); the paper has the margin everywhere.

    Args:
        variant: ``am`` or ``arc``; FaceX-Zoo's ``is_am`` 1 or 0.
        margin: m: from 0 to 1 for ``am``, in radians below pi / 2 for ``arc``.
        mv_weight: w of the paper's t = w - 1, from 1 (no difference) on.
        scale: s, the norm given to the normalised features.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wang2020mvsoftmax",
        title="Mis-classified Vector Guided Softmax Loss for Face Recognition",
        authors="Wang, Xiaobo and Zhang, Shifeng and Wang, Shuo and Fu, Tianyu and Shi, Hailin and Mei, Tao",
        venue="AAAI",
        year=2020,
        arxiv="1912.00833",
    )

    def __init__(
        self,
        variant: Literal["am", "arc"] = "am",
        margin: float = 0.35,
        mv_weight: float = 1.12,
        scale: float = 32.0,
    ) -> None:
        super().__init__(scale=scale)
        self.variant = variant
        if variant == "arc":
            self.margin = check_angle("MV-Softmax margin", margin)
        else:
            self.margin = in_range("MV-Softmax margin", margin, 0.0, 1.0)
        self.mv_weight = in_range("MV-Softmax mv_weight", mv_weight, 1.0, math.inf, high_open=True)

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Adds ``threshold``: f, the cosine above which a negative is misclassified, (B,)."""
        own = target.detach()
        # With the margin everywhere, as in FaceX-Zoo's program, also where the target keeps its cosine.
        threshold = own - self.margin if self.variant == "am" else add_angle(own, self._angle(own), "none")
        return Terms(labels, target, norms, values={"threshold": threshold})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine with margin of each sample to its own class, (B,) -> (B,)."""
        if self.variant == "arc":
            return add_angle(target, self._angle(target), "easy")
        # As published, although the curve jumps at m: a sample just below it keeps m, one just above gets 0.
        return torch.where(target > self.margin, target - self.margin, target)

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """Cosines to the classes of a chunk, the misclassified ones ``w cos(theta_j) + w - 1``, (B, C) -> (B, C)."""
        hard = cosine > terms.values["threshold"].unsqueeze(1)
        return torch.where(hard, self.mv_weight * cosine + (self.mv_weight - 1.0), cosine)

    def _angle(self, like: Tensor) -> Tensor:
        return like.new_full((), self.margin)
