"""ElasticFace: margins drawn at random for each sample and step."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.angular import Boundary, add_angle, check_angle
from facelab.head.base import HEADS, MarginHead, Terms
from facelab.head.noise import normal


@HEADS.register("ElasticFace")
class ElasticFace(MarginHead):
    """Elastic margin (Boutros et al., CVPR workshops 2022, arXiv:2109.09416, Eq. 5 to 7).

    The target logit is ``s cos(theta + E)`` (``arc``) or ``s (cos(theta) - E)`` (``cos``), all others
    ``s cos(theta_j)``, with a new ``E ~ N(m, sigma)`` for each sample. With ``plus`` (ElasticFace+) the margins of a
    batch are sorted, so that the sample farthest from its own class gets the largest.

    Departures: published programs index the sorted margins by the sorting permutation where its inverse is needed,
    so their margins do not follow the cosines; here they do, unless ``plus`` is ``published``. Past pi, ``arc``
    continues with ``cos(theta) - E sin(E)`` instead of following the cosine, unless ``boundary`` is ``none``. Negative
    margins are cut to 0. Margins follow from ``seed`` and a step counter, which is kept in checkpoints, so that they
    are equal on all processes. In evaluation E = m.

    Args:
        variant: ``arc`` or ``cos``.
        margin: m, the mean of the margins: in radians below pi / 2 for ``arc``, from 0 to 1 for ``cos``.
        deviation: sigma, from 0 (ArcFace or CosFace) to 0.5.
        plus: Sort the margins of a batch by its cosines; ``published`` gives them to the samples in the order of the
            published programs.
        scale: s, the norm given to the normalised features.
        seed: Of the margins.
        boundary: Of ``arc``: past pi ``linear`` continues with ``cos(theta) - E sin(E)``, ``none`` follows the cosine.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="boutros2022elasticface",
        title="ElasticFace: Elastic Margin Loss for Deep Face Recognition",
        authors="Boutros, Fadi and Damer, Naser and Kirchbuchner, Florian and Kuijper, Arjan",
        venue="CVPR Workshops",
        year=2022,
        arxiv="2109.09416",
    )
    step: Tensor

    def __init__(
        self,
        variant: Literal["arc", "cos"] = "arc",
        margin: float = 0.5,
        deviation: float = 0.05,
        plus: bool | Literal["published"] = False,
        scale: float = 64.0,
        seed: int = 0,
        boundary: Literal["linear", "none"] = "linear",
    ) -> None:
        super().__init__(scale=scale)
        if boundary == "none" and variant == "cos":
            raise ConfigError("ElasticFace boundary is 'none', but a cosine margin passes no boundary; leave it out.")
        self.boundary: Boundary = boundary
        self.variant = variant
        if variant == "arc":
            self.margin = check_angle("ElasticFace margin", margin)
        else:
            self.margin = in_range("ElasticFace margin", margin, 0.0, 1.0)
        self.deviation = in_range("ElasticFace deviation", deviation, 0.0, 0.5)
        self.plus = plus
        self.seed = int(in_range("ElasticFace seed", seed, 0, 2**31, high_open=True))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Counts the step, and adds ``margin``: E of each sample, (B,)."""
        margin = torch.full_like(target, self.margin, requires_grad=False)
        if self.training:
            drawn = normal(self.seed, self.step, target.numel()).to(target.dtype)
            margin = (margin + self.deviation * drawn).clamp(0.0, math.pi / 2)
            self.step += 1
        return Terms(labels, target, norms, values={"margin": self._ordered(margin, target)})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample to its own class with its margin, (B,) -> (B,)."""
        margin = terms.values["margin"]
        return add_angle(target, margin, self.boundary) if self.variant == "arc" else target - margin

    def _ordered(self, margin: Tensor, target: Tensor) -> Tensor:
        """The same margins, with ``plus`` the largest where the cosine is smallest."""
        if not self.plus:
            return margin
        # Stable, because all processes must give equal cosines the same margins.
        order, rising = target.detach().argsort(descending=True, stable=True), margin.sort().values
        if self.plus == "published":
            return rising[order]
        # order[i] names the sample in place i, so margin i is written there; the published programs read there.
        return torch.empty_like(margin).scatter_(0, order, rising)
