"""Who makes quality scores, and what they mean."""

import math
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from facelab.config import Strict
from facelab.errors import ConfigError

# Scores are stored as float32, in which a larger one is infinite.
LARGEST = float(np.finfo(np.float32).max)

ScoreSource = Path | dict[str, dict[str, Any] | None]
"""Where quality scores come from: a table, or a scorer as ``{name: options}``, which scores each set once."""


class ScorerCard(Strict):
    """Who made scores, and what they mean.

    Attributes:
        name: Registered name of the scorer.
        version: Version or hash of all that its numbers depend on.
        low: Least score it can give; None if there is none.
        high: Greatest score it can give; None if there is none.
        higher_is_better: Direction.
    """

    name: str = Field(min_length=1)
    version: str = ""
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)
    higher_is_better: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self

    def allows(self, score: float) -> bool:
        """Whether a score is finite and in the declared range."""
        low, high = (-LARGEST if self.low is None else self.low), (LARGEST if self.high is None else self.high)
        return math.isfinite(score) and low <= score <= high

    def quality(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """What scores say of quality: higher is better, whatever their direction."""
        return scores if self.higher_is_better else -scores

    def describe(self) -> str:
        """For example ``BRISQUE, 0 to 1, higher is better``."""
        ends = [("no limit" if end is None else f"{end:g}") for end in (self.low, self.high)]
        return f"{self.name}, {' to '.join(ends)}, {'higher' if self.higher_is_better else 'lower'} is better"

    def identify(self) -> str:
        """The same with the version, where there is one."""
        return f"{self.describe()} (version '{self.version}')" if self.version else self.describe()

    def agrees_with(self, other: "ScorerCard") -> bool:
        """Whether scores of both mean the same; a version counts where both state one."""
        versions = {self.version, other.version} - {""}
        same = self.model_copy(update={"version": ""}) == other.model_copy(update={"version": ""})
        return same and len(versions) < 2


def require_scorer(wanted: ScorerCard | None, given: ScorerCard, where: str) -> None:
    """Refuse scores of another scorer than the one that a gate was calibrated on.

    Args:
        wanted: Whose scores the gate takes; None if that is unknown.
        given: Who made the scores.
        where: Names the scores in the message.

    Raises:
        ConfigError: If name, range, direction or version differ.
    """
    if wanted is not None and not wanted.agrees_with(given):
        raise ConfigError(
            f"{where}: holds scores of {given.identify()}, but the gate was calibrated on {wanted.identify()}; score "
            f"the images with that one: facelab iqa score DATA --scorer {wanted.name}."
        )
