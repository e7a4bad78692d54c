"""From a quality score to the gate of the experts: at 0 the low-quality expert works alone, at 1 the other one."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.errors import ConfigError, DataError, in_range
from facelab.quality.card import ScorerCard
from facelab.registry import Registry

SURE = 0.9  # the gate of a typical high-quality image; 1 - SURE that of a low-quality one
BINS = 256


class Gate(nn.Module, ABC):
    """Maps scores to gate values. What it learned of the scores is part of its state dict, and so of checkpoints.

    Attributes:
        tau: Score between low and high quality, ().
        temperature: Width of the passage between them, in units of the score, ().
        sign: 1 where a higher score is better, -1 otherwise, ().
        scorer: Who made the scores that it was calibrated on; None before that. Checkpoints keep it in their card.
    """

    citation: ClassVar[Citation | None] = None
    tau: Tensor
    temperature: Tensor
    sign: Tensor

    def __init__(self, tau: float | None = None, temperature: float | None = None) -> None:
        super().__init__()
        self.scorer: ScorerCard | None = None
        if temperature is not None:
            in_range("gate temperature", temperature, 0.0, math.inf, low_open=True)
        self._given = (tau, temperature)
        # NaN until it is calibrated: no embedding looks right before.
        self.register_buffer("tau", torch.tensor(math.nan))
        self.register_buffer("temperature", torch.tensor(math.nan))
        self.register_buffer("sign", torch.tensor(1.0))

    def calibrate(self, scores: ArrayLike, scorer: ScorerCard) -> None:
        """Set threshold, width and direction from the scores of the training images.

        The threshold is that of Otsu: it separates the scores into a low and a high group with the least variance
        inside them, as the two modes of gallery and probe images are. At the means of the groups the gate is 0.1 and
        0.9. A value that was given to the constructor is kept.

        Args:
            scores: One score for each training image, (N,); those that are NaN are passed over.
            scorer: What the scores mean.

        Raises:
            DataError: If fewer than two scores differ and a value is needed from them.
        """
        tau, temperature = self._given
        if tau is None or temperature is None:
            measured = two_modes(scores)
            tau = measured[0] if tau is None else tau
            temperature = measured[1] if temperature is None else temperature
        self.tau.fill_(tau)
        self.temperature.fill_(temperature)
        self.sign.fill_(1.0 if scorer.higher_is_better else -1.0)
        self.scorer = scorer

    def forward(self, score: Tensor) -> Tensor:
        """Gate of each image, (B,), from its score, (B,)."""
        return self.gate(score.to(self.tau.dtype))

    def normalised_quality(self, score: Tensor) -> Tensor:
        """Quality as the distance of a score from the threshold, in units of the width; above 0 on the good side."""
        return self.sign * (score - self.tau) / self.temperature

    @abstractmethod
    def gate(self, score: Tensor) -> Tensor:
        """The gate by this map."""


GATES: Registry[Gate] = Registry("gate", "facelab.adapter")


def two_modes(scores: ArrayLike) -> tuple[float, float]:
    """Otsu's threshold of some scores (IEEE Trans. SMC 1979), and the width that makes the gate sure at both modes.

    Returns:
        Threshold, and the temperature T for which ``sigmoid((mean of the high group - mean of the low) / 2T)`` is 0.9.

    Raises:
        DataError: If all scores are equal.
    """
    values: NDArray[np.float64] = np.asarray(scores, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not len(values) or values.min() == values.max():
        raise DataError(
            f"{len(values)} scores that do not differ cannot calibrate a gate; give it tau and temperature."
        )
    # The variance inside two groups is what is left of the whole variance after that between their means, so the least
    # of the one is the most of the other: below * above * (high - low)^2. Cumulative sums give it everywhere.
    counts, edges = np.histogram(values, BINS)
    sums, _ = np.histogram(values, edges, weights=values)
    below, total = np.cumsum(counts)[:-1], np.cumsum(sums)[:-1]
    above = len(values) - below
    inner = (below > 0) & (above > 0)
    low = np.divide(total, below, where=inner, out=np.zeros(BINS - 1))
    high = np.divide(values.sum() - total, above, where=inner, out=np.zeros(BINS - 1))
    between = np.where(inner, below * above * (high - low) ** 2, -1.0)
    # In a gap between the modes all thresholds part the scores alike. Its middle leaves both sides the same room for
    # images that are not among these; the first one would lie at the edge of the low mode.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    place = int(best[len(best) // 2])
    # A mean lies half the distance of both from the threshold, if that is in the middle: solve sigmoid(half / T) = 0.9.
    temperature = (high[place] - low[place]) / (2 * math.log(SURE / (1 - SURE)))
    return float(edges[place + 1]), float(temperature)


@GATES.register("sigmoid")
class SigmoidGate(Gate):
    """``a = sigmoid((q - tau) / T)``: bounded, smooth, and obeys the direction of the score.

    Args:
        tau: Threshold; by default from the training scores.
        temperature: T; by default from the training scores.
    """

    def gate(self, score: Tensor) -> Tensor:
        """Between 0 and 1."""
        return torch.sigmoid(self.normalised_quality(score))


@GATES.register("linear")
class LinearGate(Gate):
    """``a = 0.5 + (q - tau) / 4T``, clamped to 0..1: the tangent of the sigmoid at tau.

    Args:
        tau: Threshold; by default from the training scores.
        temperature: T; by default from the training scores.
    """

    def gate(self, score: Tensor) -> Tensor:
        """From 0 to 1."""
        return (0.5 + self.normalised_quality(score) / 4).clamp(0.0, 1.0)


@GATES.register("compat")
class CompatGate(Gate):
    """``a = 0.5 + q - tau``, unclamped, as PETALface publishes it for a score in 0..1 where higher is better.

    With a score of another range or direction the published program does the same: gates of 30 or -20, and the experts
    change roles. Here that is refused unless ``as_published`` asks for it.

    Args:
        tau: Threshold; 0.5 in the published program.
        as_published: Take scores of any range and direction.
    """

    def __init__(self, tau: float = 0.5, as_published: bool = False) -> None:
        super().__init__(tau, 1.0)
        self.as_published = as_published

    def calibrate(self, scores: ArrayLike, scorer: ScorerCard) -> None:
        """Check the scorer; nothing is learned from the scores.

        Raises:
            ConfigError: If its scores are not in 0..1 with higher being better.
        """
        if not self.as_published and ((scorer.low, scorer.high) != (0.0, 1.0) or not scorer.higher_is_better):
            raise ConfigError(
                f"the gate 'compat' is made for scores from 0 to 1 where higher is better, but these are of "
                f"{scorer.describe()}; choose the gate 'sigmoid', or set as_published: true."
            )
        super().calibrate(scores, scorer)
        self.sign.fill_(1.0)  # the published program never turns a score round

    def gate(self, score: Tensor) -> Tensor:
        """Unbounded."""
        return 0.5 + score - self.tau


@GATES.register("learned")
class LearnedGate(Gate):
    """A monotone map that is trained with the adapters; it starts as the sigmoid.

    ``a = sigmoid(w z + b + sum_k softplus(v_k) tanh(z - c_k))`` with z the normalised quality; w is positive too, so
    that better quality never lowers the gate.

    Args:
        knots: Terms of the sum, their c_k spread over -3..3.
        tau: Threshold to start from; by default from the training scores.
        temperature: T to start from; by default from the training scores.
    """

    def __init__(self, knots: int = 5, tau: float | None = None, temperature: float | None = None) -> None:
        super().__init__(tau, temperature)
        in_range("learned gate knots", knots, 1, 64)
        self.register_buffer("centres", torch.linspace(-3.0, 3.0, knots))
        self.slope = nn.Parameter(torch.tensor(math.log(math.e - 1)))  # softplus of it is 1
        self.offset = nn.Parameter(torch.zeros(()))
        self.heights = nn.Parameter(torch.full((knots,), -6.0))  # nearly no bend

    def gate(self, score: Tensor) -> Tensor:
        """Between 0 and 1."""
        quality = self.normalised_quality(score)
        bends = F.softplus(self.heights) * torch.tanh(quality.unsqueeze(1) - self.get_buffer("centres"))
        return torch.sigmoid(F.softplus(self.slope) * quality + self.offset + bends.sum(dim=1))
