"""AdaFace: the norm of an embedding, as a sign of quality, turns an angular margin into a cosine margin."""

from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.angular import angle
from facelab.head.base import HEADS, MarginHead, Terms

# The authors' constants: norms are cut to this range, this is added to their deviation,
# and angles stay this far from 0 and pi (as cosines, from 1 and -1).
NORM_RANGE = (1e-3, 100.0)
MIN_DEVIATION = 1e-3
MIN_ANGLE = 1e-3


@HEADS.register("AdaFace")
class AdaFace(MarginHead):
    """Quality adaptive margin (Kim et al., CVPR 2022, arXiv:2204.00964, Eq. 13 to 19).

    With ``g = clip(h (||x|| - mu) / sigma, -1, 1)``, where mu and sigma are running mean and deviation of the norms,
    the target logit is ``s (cos(theta - m g) - (m + m g))``: ArcFace at g = -1, CosFace at 0, a negative angle at 1.
    The norm carries no gradient. All others are ``s cos(theta_j)``.

    As in the authors' program, sigma is unbiased, theta - m g is kept off 0 and pi, and the target's cosine is cut to
    +-0.999. Unlike there, cosines to other classes are not cut, mu and sigma are those of the global batch on every
    process, and they move in training only.

    Args:
        margin: m, from 0 up to 1.
        concentration: h, from 0 (g = 0 everywhere) on; the authors recommend 0.333.
        scale: s, the norm given to the normalised features.
        momentum: The authors' ``t_alpha``: share of the current batch in mu and sigma, above 0 up to 1 (the current
            batch alone).

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="kim2022adaface",
        title="AdaFace: Quality Adaptive Margin for Face Recognition",
        authors="Kim, Minchul and Jain, Anil K. and Liu, Xiaoming",
        venue="CVPR",
        year=2022,
        arxiv="2204.00964",
    )
    uses_norm: ClassVar[bool] = True
    mean_norm: Tensor
    norm_deviation: Tensor

    def __init__(
        self, margin: float = 0.4, concentration: float = 0.333, scale: float = 64.0, momentum: float = 0.01
    ) -> None:
        super().__init__(scale=scale)
        self.margin = in_range("AdaFace margin", margin, 0.0, 1.0)
        self.concentration = in_range("AdaFace concentration", concentration, 0.0, float("inf"), high_open=True)
        self.momentum = in_range("AdaFace momentum", momentum, 0.0, 1.0, low_open=True)
        # The authors' first values; at a momentum of 0.01 they are forgotten after a few hundred steps.
        self.register_buffer("mean_norm", torch.tensor(20.0))
        self.register_buffer("norm_deviation", torch.tensor(100.0))

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Moves mu and sigma, and adds ``quality``: g of each sample, (B,), -1 to 1.

        Raises:
            ConfigError: If the global batch in training is a single sample, which has no deviation.
        """
        clipped = norms.detach().clamp(*NORM_RANGE)
        # As in the authors' program, the batch moves mu and sigma before they are used.
        if self.training:
            self._observe(clipped)
        deviations = (clipped - self.mean_norm) / (self.norm_deviation + MIN_DEVIATION)
        quality = (self.concentration * deviations).clamp(-1.0, 1.0)
        return Terms(labels, target, norms, values={"quality": quality})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """``cos(theta - m g) - (m + m g)`` of each sample, (B,) -> (B,)."""
        shift = self.margin * terms.values["quality"]
        moved = (angle(target, MIN_ANGLE) - shift).clamp(MIN_ANGLE, torch.pi - MIN_ANGLE)
        return moved.cos() - (self.margin + shift)

    def _observe(self, norms: Tensor) -> None:
        if norms.numel() < 2:
            raise ConfigError("AdaFace needs at least 2 images in a batch to know how much their norms deviate.")
        self.mean_norm.lerp_(norms.mean(), self.momentum)
        self.norm_deviation.lerp_(norms.std(), self.momentum)
