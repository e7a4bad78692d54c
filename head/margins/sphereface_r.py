"""SphereFace-R: the target's angle is multiplied, with a fixed scale and the gradient of the cosine."""

import math
from typing import ClassVar, Literal

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import Gradient, angle, apply_gradient, monotone_cosine
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("SphereFace-R")
class SphereFaceR(MarginHead):
    """Multiplicative angular margin, revived (Liu et al., TPAMI 2022, arXiv:2109.05565), with normalised features.

    The target logit of variant ``v0`` is that of SphereFace, ``s ((-1)^k cos(m theta) - 2 k)`` with k the whole pi in
    ``m theta``, that of ``v1`` ``s cos(min(m theta, pi))``; their others are ``s cos(theta_j)``. ``v2`` leaves the
    target and brings the others nearer, ``s cos(theta_j / m)``.

    By default the margin changes values only (``straight_through``), the paper's characteristic gradient detachment.
    The program multiplies the loss by 50 / s, which is a matter of the learning rate; here it is the plain mean.

    Args:
        variant: ``v0``, ``v1`` or ``v2``.
        margin: m, the factor of the angle, 1 (no margin) to 5.
        scale: s, the norm given to the normalised features.
        gradient: ``straight_through`` or ``exact``.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="liu2022sphereface",
        title="SphereFace Revived: Unifying Hyperspherical Face Recognition",
        authors="Liu, Weiyang and Wen, Yandong and Raj, Bhiksha and Singh, Rita and Weller, Adrian",
        venue="IEEE TPAMI",
        year=2022,
        arxiv="2109.05565",
    )

    def __init__(
        self,
        variant: Literal["v0", "v1", "v2"] = "v1",
        margin: float = 1.4,
        scale: float = 30.0,
        gradient: Gradient = "straight_through",
    ) -> None:
        super().__init__(scale=scale)
        self.variant = variant
        self.margin = in_range("SphereFaceR margin", margin, 1.0, 5.0)
        self.gradient: Gradient = gradient

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample's angle times m, in ``v2`` of the angle itself, (B,) -> (B,)."""
        if self.variant == "v2":
            return target
        phi = self.margin * angle(target)
        curve = monotone_cosine(phi) if self.variant == "v0" else phi.clamp_max(math.pi).cos()
        return apply_gradient(curve, target, self.gradient)

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """Cosines to the classes of a chunk, in ``v2`` of the angles divided by m, (B, C) -> (B, C)."""
        if self.variant != "v2":
            return cosine
        return apply_gradient((angle(cosine) / self.margin).cos(), cosine, self.gradient)
