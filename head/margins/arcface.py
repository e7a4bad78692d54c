"""ArcFace: an angle is added to the target's angle."""

from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.head.angular import (
    Boundary,
    Gradient,
    add_angle,
    apply_gradient,
    check_angle,
    check_boundary_margin,
)
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("ArcFace")
class ArcFace(MarginHead):
    """Additive angular margin (Deng et al., CVPR 2019, arXiv:1801.07698, Eq. 3).

    The target logit is ``s cos(theta + m)``, all others ``s cos(theta_j)``. Past ``theta + m = pi`` that curve would
    turn upward again; Eq. 3 leaves it open, and the published programs differ: see ``boundary`` and ``gradient``.

    Args:
        margin: m, in radians, from 0 (softmax of cosines) up to but not including pi / 2.
        scale: s, the norm given to the normalised features.
        boundary: Past pi, ``linear`` continues with ``cos(theta) - m sin(m)``, ``constant`` with
            ``cos(theta) - boundary_margin`` (FaceX-Zoo), ``none`` follows the cosine (InsightFace's PyTorch program);
            ``easy`` has a margin only where ``cos(theta) > 0``.
        boundary_margin: FaceX-Zoo's ``margin_am``, 0 to 2; only with ``constant``. The curve jumps there unless it is
            1 - cos(m).
        gradient: ``exact``, or ``straight_through``: the margin changes the value only, and the target's cosine gets
            the gradient of ``s cos(theta)``, as in InsightFace's PyTorch program.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="deng2019arcface",
        title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
        authors="Deng, Jiankang and Guo, Jia and Xue, Niannan and Zafeiriou, Stefanos",
        venue="CVPR",
        year=2019,
        arxiv="1801.07698",
    )

    def __init__(
        self,
        margin: float = 0.5,
        scale: float = 64.0,
        boundary: Boundary = "linear",
        boundary_margin: float = 0.0,
        gradient: Gradient = "exact",
    ) -> None:
        super().__init__(scale=scale)
        self.margin = check_angle("ArcFace margin", margin)
        self.boundary = boundary
        self.boundary_margin = check_boundary_margin("ArcFace", boundary, boundary_margin)
        self.gradient = gradient

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample's angle plus m, (B,) -> (B,)."""
        margin = target.new_full((), self.margin)
        shifted = add_angle(target, margin, self.boundary, self.boundary_margin)
        return apply_gradient(shifted, target, self.gradient)
