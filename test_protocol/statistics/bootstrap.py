"""Bootstrap of rates and curves by identity: exact, and fast enough for 15.7 million pairs.

A true accept rate changes only where the threshold passes the score of a same pair. So the scores of different pairs
are not sorted in each draw, but counted once between the scores of neighbouring same pairs, and a draw only weights
these counts (`resampling` says by what). TAR@FAR, AUC and EER of each draw equal those of the
repeated pairs in full: there is no bin width. Only with more than ``MAX_SCORES`` different scores of same pairs, every
n-th is kept; then a rate may be off by the share of the same pairs that lie between two that are kept, 1 / MAX_SCORES.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import ConfigError, in_range
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.statistics.resampling import Units, multiplicities

MAX_SCORES = 1 << 15
BLOCK_GROUPS = 1 << 12  # keeps the partial sums in the cache
SLACK = 1e-12  # rates are sums of whole numbers over whole numbers; equality must survive rounding


@dataclass(frozen=True)
class Curves:
    """One ROC for each draw, at thresholds that all share.

    Attributes:
        threshold: (T,), falling from +inf to -inf.
        far: False accept rates, (T, D); NaN in a draw without different pairs.
        tar: True accept rates, (T, D); NaN in a draw without same pairs.
    """

    threshold: NDArray[Any]
    far: Floats
    tar: Floats


Statistic = Callable[[Curves], Floats]


def tar_at_far(target: float) -> Statistic:
    """True accept rate of each draw at the lowest threshold whose false accept rate does not exceed ``target``.

    Raises:
        ConfigError: If the target is not in (0, 1].
    """
    in_range("a target FAR", target, 0.0, 1.0, low_open=True)

    def measure(curves: Curves) -> Floats:
        last = np.sum(curves.far <= target + SLACK, axis=0) - 1
        return np.asarray(curves.tar[last, np.arange(len(last))])

    return measure


def fnmr_at_fmr(target: float) -> Statistic:
    """False non-match rate of each draw there: what the true accept rate lacks to 1.

    Raises:
        ConfigError: If the target is not in (0, 1].
    """
    accepted = tar_at_far(target)
    return lambda curves: 1.0 - accepted(curves)


def accuracy_at(threshold: float, share: float) -> Statistic:
    """Share of right decisions of each draw at a fixed threshold, which must be one of the curves' thresholds.

    Args:
        threshold: Accept where the score is at least this.
        share: Same pairs among all pairs. It belongs to the design of the list and stays as it is in every draw.
    """

    def measure(curves: Curves) -> Floats:
        # Thresholds are of the scores' type, mostly float32: the one that is looked for is rounded as they were.
        row = int(np.argmax(curves.threshold <= curves.threshold.dtype.type(threshold)))
        return np.asarray(share * curves.tar[row] + (1.0 - share) * (1.0 - curves.far[row]))

    return measure


def auc(curves: Curves) -> Floats:
    """Area under the curve of each draw, (D,)."""
    return np.asarray(np.sum(np.diff(curves.far, axis=0) * (curves.tar[1:] + curves.tar[:-1]), axis=0) / 2.0)


def eer(curves: Curves) -> Floats:
    """Equal error rate of each draw, linear between neighbouring points, (D,)."""
    gap = 1.0 - curves.tar - curves.far
    right = np.argmax(gap <= SLACK, axis=0)
    left, draw = right - 1, np.arange(gap.shape[1])
    share = gap[left, draw] / (gap[left, draw] - gap[right, draw])
    return np.asarray(curves.far[left, draw] + share * (curves.far[right, draw] - curves.far[left, draw]))


class ResampledRoc:
    """Scored trials, made ready to be counted with any multiplicities of their people.

    Args:
        score: Similarity of each trial, (N,).
        same: Whether it is one that should be accepted, (N,).
        units: What is drawn.
        thresholds: Thresholds that the curves must hold besides those where they turn.
    """

    def __init__(self, score: NDArray[Any], same: Booleans, units: Units, thresholds: Sequence[float] = ()) -> None:
        self.units = units
        self.threshold = _thresholds(score, same, thresholds)
        # Scores are sorted into bins once; a draw then only weighs counts of bins, and never sorts.
        place = len(self.threshold) - np.searchsorted(self.threshold[::-1], score, side="right")
        self._same = _WeightedCounts(place[same], units.first[same], units.second[same], len(self.threshold))
        self._different = _WeightedCounts(place[~same], units.first[~same], units.second[~same], len(self.threshold))

    def curves(self, weight: Floats) -> Curves:
        """ROC of each draw.

        Args:
            weight: Multiplicities of the units, (1 + units, D); row 0 is all ones.
        """
        return Curves(self.threshold, _rates(self._different(weight)), _rates(self._same(weight)))

    def draw(self, statistics: Sequence[Statistic], draws: int, seed: int) -> Floats:
        """Values of each statistic in each draw, (S, draws); NaN where a draw left no same or no different pairs.

        Raises:
            ConfigError: If ``draws`` is less than 1.
        """
        check_draws(draws)
        blocks = []
        for weight in multiplicities(self.units.count, draws, seed):
            curves = self.curves(weight)
            broken = np.isnan(curves.far[-1] + curves.tar[-1])
            blocks.append([np.where(broken, np.nan, statistic(curves)) for statistic in statistics])
        return np.concatenate(blocks, axis=1)


def draw_rank_rates(rank: Integers, ranks: Sequence[int], units: Units, draws: int, seed: int) -> Floats:
    """Share of the probes with a mate that have it within each of ``ranks``, for each draw, (R, draws).

    Args:
        rank: Rank of each probe's mate, 0 without one, (N,).
        ranks: For example 1, 5 and 10.
        units: What is drawn.
        draws: Number of draws.
        seed: Of the random numbers.

    Raises:
        ConfigError: If ``draws`` is less than 1.
    """
    check_draws(draws)
    unit = np.maximum(units.first, units.second)  # one of the two is the unit that always counts
    hits = [(rank > 0) & (rank <= limit) for limit in ranks]
    counts = np.stack([np.bincount(unit, among, units.count + 1) for among in (rank > 0, *hits)])
    blocks = []
    for weight in multiplicities(units.count, draws, seed):
        mates, *found = counts @ weight
        blocks.append(_share(np.stack(found), mates))
    return np.concatenate(blocks, axis=1)


def percentile_interval(values: Floats, level: float) -> tuple[float, float] | None:
    """Middle part of the draws, from (1 - level) / 2 to (1 + level) / 2; None if half of them or more are NaN.

    Raises:
        ConfigError: If ``level`` is not in (0, 1).
    """
    in_range("level", level, 0.0, 1.0, low_open=True, high_open=True)
    measured = values[~np.isnan(values)]
    if 2 * len(measured) <= len(values):
        return None
    low, high = np.quantile(measured, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def check_draws(draws: int) -> None:
    """Refuse a number of draws that is none.

    Raises:
        ConfigError: If it is less than 1.
    """
    if draws < 1:
        raise ConfigError(f"a bootstrap needs at least 1 draw, got {draws}; 1000 is usual.")


def _thresholds(score: NDArray[Any], same: Booleans, wanted: Sequence[float]) -> NDArray[Any]:
    """Where a curve can turn: at each same score, and just above it, which keeps equal different scores apart."""
    scores = np.unique(score[same])
    if len(scores) > MAX_SCORES:
        scores = scores[np.linspace(0, len(scores) - 1, MAX_SCORES).astype(np.int64)]
    # Between a same score and the next number above it lie its ties alone: without a threshold there, different scores
    # above it would be counted as tied with it.
    above = np.nextafter(scores, score.dtype.type(np.inf))
    fixed = np.array([*wanted, np.inf, -np.inf], score.dtype)
    return np.unique(np.concatenate([scores, above, fixed]))[::-1]


class _WeightedCounts:
    """Counts of pairs between neighbouring thresholds, as sums of products of multiplicities.

    Pairs of one bin and one first unit form a row of a sparse matrix over the second units; one product with the
    multiplicities then sums each row for all draws at once.
    """

    def __init__(self, place: Integers, first: Integers, second: Integers, bins: int) -> None:
        self.bins = bins
        firsts, seconds = (int(unit.max(initial=0)) + 1 for unit in (first, second))
        key = (place.astype(np.int64) * firsts + first) * seconds + second  # far below 2**63: bins stay below 2**17
        key.sort()
        starts = _starts(key)
        group, self._second = np.divmod(key[starts], seconds)
        self._times = np.diff(starts, append=len(key)).astype(np.float64)
        self._rows = _starts(group)
        self._bin, self._first = np.divmod(group[self._rows], firsts)
        self._ends = np.append(self._rows, len(group))

    def __call__(self, weight: Floats) -> Floats:
        """Weighted number of pairs in each bin, (bins, D)."""
        from scipy.sparse import csr_matrix

        counts = np.zeros((self.bins, weight.shape[1]))
        for start in range(0, len(self._rows), BLOCK_GROUPS):
            rows = slice(start, start + BLOCK_GROUPS)
            ends = self._ends[start : start + BLOCK_GROUPS + 1]
            inside = slice(ends[0], ends[-1])
            content = (self._times[inside], self._second[inside], ends - ends[0])
            sums = csr_matrix(content, shape=(len(ends) - 1, len(weight))) @ weight
            sums *= weight[self._first[rows]]  # a pair is drawn as often as both of its people together: the product
            bins = self._bin[rows]
            changes = _starts(bins)
            counts[bins[changes]] += np.add.reduceat(sums, changes, axis=0)
        return counts


def _starts(ordered: Integers) -> Integers:
    """Where each run of equal values begins."""
    return np.asarray(np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1)))


def _rates(counts: Floats) -> Floats:
    accepted = np.cumsum(counts, axis=0)
    return _share(accepted, accepted[-1])


def _share(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))
