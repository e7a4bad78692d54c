"""How sure an error rate at a fixed threshold is: by identity where people are known, else exact for independent pairs.

By identity, people are drawn as `resampling` says. A rate without any error has no spread to draw from; then, and where
people are unknown, the interval is that of Clopper and Pearson (Biometrika 26, 1934), which takes pairs as independent:
no error in n pairs bounds the rate by about 3.7 / n (at 95 %, two-sided).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facelab.errors import DataError, in_range
from facelab.test_protocol.metrics.metrics import Floats, Integers
from facelab.test_protocol.statistics.bootstrap import check_draws, percentile_interval
from facelab.test_protocol.statistics.resampling import multiplicities

Interval = tuple[float, float]


@dataclass(frozen=True)
class Errors:
    """Pairs that were judged wrongly, among all that were judged.

    Attributes:
        first: A unit of each wrong pair, numbered from 1, 0 where there is none, (E,); see `resampling.Units`.
        second: The other one, (E,).
        total: How many pairs were judged.
        weigh: Their number in draws, (D,), from the multiplicities of the units, (1 + units, D); row 0 is all ones.
        units: Number of units; 0 if people are unknown.
    """

    first: Integers
    second: Integers
    total: int
    weigh: Callable[[Floats], Floats]
    units: int

    @property
    def rate(self) -> float:
        """Share of the pairs that were judged wrongly."""
        return len(self.first) / self.total

    def interval(self, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
        """Where the rate may lie.

        Args:
            draws: Of the bootstrap.
            seed: Of its random numbers.
            level: Part of the draws between the ends, in (0, 1).

        Raises:
            ConfigError: If ``draws`` or ``level`` is out of range.
        """
        check_draws(draws)
        if not self.units or not len(self.first):
            return clopper_pearson(len(self.first), self.total, level)
        rates = []
        for weight in multiplicities(self.units, draws, seed):
            wrong = np.einsum("ed,ed->d", weight[self.first], weight[self.second])
            judged = self.weigh(weight)
            rates.append(np.divide(wrong, judged, out=np.full(len(judged), np.nan), where=judged > 0))
        drawn = percentile_interval(np.concatenate(rates), level)
        return clopper_pearson(len(self.first), self.total, level) if drawn is None else drawn


def of_pairs(first: Integers, second: Integers) -> Callable[[Floats], Floats]:
    """Number of listed pairs in draws: each counts the product of the multiplicities of its units."""
    return lambda weight: np.einsum("pd,pd->d", weight[first], weight[second])


def of_all_pairs(images: Integers) -> Callable[[Floats], Floats]:
    """Number of all pairs of images of different people in draws.

    Args:
        images: Number of images of each person, in the order of the units, (units,).
    """

    def weigh(weight: Floats) -> Floats:
        drawn = weight[1:] * images[:, None]
        return np.asarray((drawn.sum(axis=0) ** 2 - (drawn**2).sum(axis=0)) / 2.0)

    return weigh


def clopper_pearson(errors: int, trials: int, level: float = 0.95) -> Interval:
    """The exact interval of a rate of independent trials.

    Raises:
        ConfigError: If ``level`` is not in (0, 1).
        DataError: If there are no trials, or more errors than trials.
    """
    from scipy.special import betaincinv

    in_range("level", level, 0.0, 1.0, low_open=True, high_open=True)
    if not 0 <= errors <= trials or not trials:
        raise DataError(f"{errors} errors in {trials} trials have no rate.")
    tail = (1.0 - level) / 2.0
    low = float(betaincinv(errors, trials - errors + 1, tail)) if errors else 0.0
    high = float(betaincinv(errors + 1, trials - errors, 1.0 - tail)) if errors < trials else 1.0
    return low, high
