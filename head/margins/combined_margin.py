"""Combined margin: multiplicative angular, additive angular and additive cosine, with a filter for noisy classes."""

import math
from typing import ClassVar, Literal

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import Gradient, add_angle, angle, apply_gradient, monotone_cosine
from facelab.head.base import HEADS, MarginHead, Terms
from facelab.head.margins.arcface import ArcFace


@HEADS.register("CombinedMargin")
class CombinedMargin(MarginHead):
    """All three margins in one formula (Deng et al., CVPR 2019, arXiv:1801.07698, Eq. 4).

    The target logit is ``s (cos(m1 theta + m2) - m3)``, all others ``s cos(theta_j)``: SphereFace is m1 alone (Liu et
    al., CVPR 2017, arXiv:1704.08063), ArcFace m2, CosFace m3. The inter-class filter is that of Partial FC (An et al.,
    CVPR 2022, arXiv:2203.15565): a negative with a large cosine is likely the same person under another label.

    InsightFace's program, whose options these are, differs from the formula: as soon as m3 > 0 it ignores m1 AND m2
    ((1, 0.3, 0.2) is plain CosFace there), it refuses m1 != 1 otherwise, it leaves angles past pi as they are
    (``boundary: none``) and computes angles without autograd (``gradient: straight_through``). Here all three margins
    count, and the defaults are the exact gradient and a monotone curve.

    Args:
        m1: Factor of the angle, above 0 up to 5.
        m2: Added to the angle, in radians, from 0 up to but not including pi / 2.
        m3: Subtracted from the cosine, 0 to 1.
        scale: s, the norm given to the normalised features.
        filter_threshold: Negatives with a larger cosine get the logit 0 and no gradient, -1 to 1; none by default.
            (InsightFace writes 0 for none.)
        boundary: Where ``phi = m1 theta + m2`` passes a multiple k of pi, ``monotone`` continues with
            ``(-1)^k cos(phi) - 2 k`` (SphereFace, Eq. 7), ``none`` follows the cosine.
        gradient: ``exact``, or ``straight_through``: the margin changes the value only.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = ArcFace.citation

    def __init__(
        self,
        m1: float = 1.0,
        m2: float = 0.5,
        m3: float = 0.0,
        scale: float = 64.0,
        filter_threshold: float | None = None,
        boundary: Literal["monotone", "none"] = "monotone",
        gradient: Gradient = "exact",
    ) -> None:
        super().__init__(scale=scale)
        self.m1 = in_range("CombinedMargin m1", m1, 0.0, 5.0, low_open=True)
        self.m2 = in_range("CombinedMargin m2", m2, 0.0, math.pi / 2, high_open=True)
        self.m3 = in_range("CombinedMargin m3", m3, 0.0, 1.0)
        if filter_threshold is not None:
            in_range("CombinedMargin filter_threshold", filter_threshold, -1.0, 1.0)
        self.filter_threshold = filter_threshold
        self.boundary = boundary
        self.gradient = gradient

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """``cos(m1 theta + m2) - m3`` of each sample to its own class, (B,) -> (B,)."""
        # CosFace to the last digit, and with a gradient at a cosine of 1, where an angle has none.
        if self.m1 == 1.0 and self.m2 == 0.0:
            return target - self.m3
        return apply_gradient(self._shifted(target), target, self.gradient) - self.m3

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """Cosines to the classes of a chunk, 0 where they pass the filter's threshold, (B, C) -> (B, C)."""
        if self.filter_threshold is None:
            return cosine
        # 0, as in InsightFace's program, and not minus infinity: the class still counts, as one at right angles.
        return cosine.masked_fill(cosine > self.filter_threshold, 0.0)

    def _shifted(self, target: Tensor) -> Tensor:
        # The addition theorem needs no angle, which would cut cosines off at 1.
        if self.m1 == 1.0 and self.boundary == "none":
            return add_angle(target, target.new_full((), self.m2), "none")
        phi = self.m1 * angle(target) + self.m2
        return phi.cos() if self.boundary == "none" else monotone_cosine(phi)
