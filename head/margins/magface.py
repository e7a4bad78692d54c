"""MagFace: an angle that grows with the norm of the embedding is added to the target's angle."""

import math

from torch import Tensor

from facelab.head.angular import Boundary, add_angle, check_boundary_margin
from facelab.head.base import HEADS, Terms
from facelab.head.magnitude import MagnitudeHead


@HEADS.register("MagFace")
class MagFace(MagnitudeHead):
    """Magnitude-aware angular margin (Meng et al., CVPR 2021, arXiv:2103.06627, Eq. 3 and 4).

    The target logit is ``s cos(theta + m(a))``, all others ``s cos(theta_j)``, with m(a) and the regulariser of
    `MagnitudeHead`; the margin's gradient reaches the norm. Afterwards the norm of an embedding tells its quality.

    The authors train with ``boundary: easy``, which the paper does not mention; FaceX-Zoo has ``constant`` and a
    ``regularization`` of 20, which is below the 22.6 that the paper's bound gives for these norms and margins.

    Args:
        scale: s, the norm given to the normalised features.
        lower_norm: l_a, above 0.
        upper_norm: u_a, above l_a.
        lower_margin: Margin at and below l_a, in radians, from 0 up to but not including pi / 2.
        upper_margin: Margin at and above u_a, in the same range.
        regularization: lambda_g, at least 0.
        boundary: Past pi, ``linear`` continues with ``cos(theta) - m sin(m)``, ``constant`` with
            ``cos(theta) - boundary_margin``, ``none`` follows the cosine; ``easy`` has a margin only where
            ``cos(theta) > 0``.
        boundary_margin: FaceX-Zoo's ``margin_am``, 0 to 2; only with ``constant``.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        scale: float = 64.0,
        lower_norm: float = 10.0,
        upper_norm: float = 110.0,
        lower_margin: float = 0.45,
        upper_margin: float = 0.8,
        regularization: float = 35.0,
        boundary: Boundary = "linear",
        boundary_margin: float = 0.0,
    ) -> None:
        super().__init__(scale, lower_norm, upper_norm, lower_margin, upper_margin, math.pi / 2, regularization)
        self.boundary = boundary
        self.boundary_margin = check_boundary_margin("MagFace", boundary, boundary_margin)

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample's angle plus its margin, (B,) -> (B,)."""
        return add_angle(target, terms.values["margin"], self.boundary, self.boundary_margin)
