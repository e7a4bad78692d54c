"""Mag-CosFace: a margin that grows with the norm of the embedding is subtracted from the target's cosine."""

from torch import Tensor

from facelab.head.base import HEADS, Terms
from facelab.head.magnitude import MagnitudeHead


@HEADS.register("MagCosFace")
class MagCosFace(MagnitudeHead):
    """Magnitude-aware cosine margin (Meng et al., CVPR 2021, arXiv:2103.06627, Mag-CosFace of the experiments).

    The target logit is ``s (cos(theta) - m(a))``, all others ``s cos(theta_j)``, with m(a) and the regulariser of
    `MagnitudeHead`. The defaults are the authors'.

    Args:
        scale: s, the norm given to the normalised features.
        lower_norm: l_a, above 0.
        upper_norm: u_a, above l_a.
        lower_margin: Margin at and below l_a, from 0 up to but not including 1.
        upper_margin: Margin at and above u_a, in the same range.
        regularization: lambda_g, at least 0.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        scale: float = 64.0,
        lower_norm: float = 10.0,
        upper_norm: float = 110.0,
        lower_margin: float = 0.35,
        upper_margin: float = 0.8,
        regularization: float = 150.0,
    ) -> None:
        super().__init__(scale, lower_norm, upper_norm, lower_margin, upper_margin, 1.0, regularization)

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample to its own class less its margin, (B,) -> (B,)."""
        return target - terms.values["margin"]
