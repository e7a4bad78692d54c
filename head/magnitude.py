"""What MagFace and Mag-CosFace share: a margin that grows with the norm of the embedding, and the pull on that norm."""

import math
from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.base import MarginHead, Terms

MAGFACE = Citation(
    key="meng2021magface",
    title="MagFace: A Universal Representation for Face Recognition and Quality Assessment",
    authors="Meng, Qiang and Zhao, Shichao and Huang, Zhida and Zhou, Feng",
    venue="CVPR",
    year=2021,
    arxiv="2103.06627",
)


class MagnitudeHead(MarginHead):
    """Margin ``m(a)``, linear in ``a = clamp(||x||, lower_norm, upper_norm)``, and ``lambda_g mean(g(a))`` in the loss.

    ``g(a) = a / upper_norm^2 + 1 / a`` (MagFace, Eq. 4 and section 3.2 of the paper) falls up to ``upper_norm``: it
    pulls norms up against the margin, which pushes them down where the sample is hard. Outside of the two norms
    nothing pulls, as in the authors' program.

    Args:
        scale: s, the norm given to the normalised features.
        lower_norm: l_a, above 0.
        upper_norm: u_a, above l_a.
        lower_margin: Margin at and below l_a.
        upper_margin: Margin at and above u_a.
        largest_margin: Bound of both, exclusive; depends on what kind of margin it is.
        regularization: lambda_g. The paper shows convergence for at least
            ``s k u_a^2 l_a^2 / (u_a^2 - l_a^2)`` with k the slope of m(a); see `least_regularization`.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = MAGFACE
    uses_norm: ClassVar[bool] = True

    def __init__(
        self,
        scale: float,
        lower_norm: float,
        upper_norm: float,
        lower_margin: float,
        upper_margin: float,
        largest_margin: float,
        regularization: float,
    ) -> None:
        super().__init__(scale=scale)
        name = type(self).__name__
        self.lower_norm = in_range(f"{name} lower_norm", lower_norm, 0.0, math.inf, low_open=True, high_open=True)
        self.upper_norm = in_range(
            f"{name} upper_norm", upper_norm, lower_norm, math.inf, low_open=True, high_open=True
        )
        self.lower_margin = in_range(f"{name} lower_margin", lower_margin, 0.0, largest_margin, high_open=True)
        self.upper_margin = in_range(f"{name} upper_margin", upper_margin, 0.0, largest_margin, high_open=True)
        if upper_margin < lower_margin:
            raise ConfigError(
                f"{name} upper_margin is {upper_margin!r}, but must not be less than lower_margin, {lower_margin!r}."
            )
        self.regularization = in_range(f"{name} regularization", regularization, 0.0, math.inf, high_open=True)

    @property
    def slope(self) -> float:
        """Margin gained with each unit of norm."""
        return (self.upper_margin - self.lower_margin) / (self.upper_norm - self.lower_norm)

    @property
    def least_regularization(self) -> float:
        """The lambda_g from which on the paper shows that the norm of each sample converges (supplement, Eq. 6)."""
        low, high = self.lower_norm**2, self.upper_norm**2
        return self.scale * self.slope * high * low / (high - low)

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Adds ``magnitude``, the clamped norms, and ``margin``; both (B,) with gradient."""
        magnitude = norms.clamp(self.lower_norm, self.upper_norm)
        margin = self.lower_margin + self.slope * (magnitude - self.lower_norm)
        return Terms(labels, target, norms, values={"magnitude": magnitude, "margin": margin})

    def regularizer(self, terms: Terms) -> Tensor:
        """``lambda_g mean(g(a))``, ()."""
        magnitude = terms.values["magnitude"]
        return self.regularization * (magnitude / self.upper_norm**2 + 1.0 / magnitude).mean()
