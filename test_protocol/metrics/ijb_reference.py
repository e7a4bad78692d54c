"""Rules of published IJB evaluators, with their quirks, for comparison with published tables."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facelab.test_protocol.metrics.identification import Search, check_ranks, closed_set, mate_rank, search
from facelab.test_protocol.metrics.metrics import Floats
from facelab.test_protocol.metrics.operating_points import Scores
from facelab.test_protocol.metrics.score_tiles import Faces, tiles

EVALS_GRID = 10.0 ** np.arange(-4, 0, 4 / 100)
"""Where the newer InsightFace script measures: 0.01 and 0.1 are 0.01000000000000004 and 0.10000000000000062 there."""


@dataclass(frozen=True)
class NearestPoint:
    """A point of the ROC near a false accept rate.

    Attributes:
        tar: True accept rate.
        far: Its false accept rate, which may lie above the target.
    """

    tar: float
    far: float


def nearest_tar(positives: Scores, negatives: Scores, targets: Sequence[float]) -> list[NearestPoint]:
    """TAR at the point of scikit-learn's ROC whose FAR is nearest to each target: all published IJB 1:1 evaluators.

    The FAR may exceed the target; of two equally near the larger is taken, at one FAR the largest TAR. `roc_curve`
    drops points in the middle of straight pieces, which changes what is nearest.

    Args:
        positives: Scores of same pairs, (P,).
        negatives: Scores of different pairs, (N,).
        targets: False accept rates.
    """
    far, tar = sklearn_roc(positives, negatives)
    # argmin() takes the first of equal distances; from behind that is the largest FAR with the largest TAR.
    distances = (np.abs(far - target)[::-1] for target in targets)
    rows = [len(far) - 1 - int(np.argmin(distance)) for distance in distances]
    return [NearestPoint(float(tar[row]), float(far[row])) for row in rows]


def sklearn_roc(positives: Scores, negatives: Scores, drop_intermediate: bool = True) -> tuple[Floats, Floats]:
    """FAR and TAR of scikit-learn's ``roc_curve``, rising, from (0, 0) to (1, 1).

    Args:
        positives: Scores of same pairs, (P,).
        negatives: Scores of different pairs, (N,).
        drop_intermediate: Whether the points in the middle of straight pieces with equal steps are dropped.
    """
    same, different = np.sort(positives), np.sort(negatives)
    threshold = np.unique(np.concatenate((same, different)))[::-1]
    true, false = (len(scores) - np.searchsorted(scores, threshold) for scores in (same, different))
    if drop_intermediate and len(threshold) > 2:
        turn = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
        kept = np.concatenate(([True], turn, [True]))
        true, false = true[kept], false[kept]
    return np.append(0.0, false / len(different)), np.append(0.0, true / len(same))


@dataclass(frozen=True)
class MergedSearch:
    """What 1:N evaluators give that put both galleries into one.

    Attributes:
        rates: Share of the probes found within each rank.
        recall: Share of the mates above each threshold, whatever their rank. It is no TPIR.
        threshold: The n-th largest of all scores of probes against other people, n = number of probes times FAR.
    """

    rates: tuple[float, ...]
    recall: tuple[float, ...]
    threshold: tuple[float, ...]


def merged_search(probes: Faces, gallery: Faces, ranks: Sequence[int], fars: Sequence[float]) -> MergedSearch:
    """The rule of InsightFace's ``ijb_1n`` and of AdaFace: one gallery, and thresholds from all non-mate scores pooled.

    Args:
        probes: Probes, each with a mate.
        gallery: Both galleries.
        ranks: Ranks to report.
        fars: Rates; times the number of probes, and rounded up, they say which of the pooled scores is the threshold.
    """
    found = search(probes.vectors, gallery.vectors, probes.person, gallery.person)
    places = [int(np.ceil(len(probes) * far)) for far in fars]
    pooled = _largest_others(probes, gallery, max(places))
    threshold = [float(pooled[place - 1]) for place in places]
    recall = [float(np.mean(found.mate > bound)) for bound in threshold]
    return MergedSearch(tuple(closed_set(found, ranks)), tuple(recall), tuple(threshold))


def _largest_others(probes: Faces, gallery: Faces, count: int) -> Floats:
    """The largest scores of probes against gallery entries of other people, falling, (count,)."""
    pool = np.full(count, -np.inf)
    for tile in tiles(probes, gallery):
        if tile.mates is not None:
            tile.scores[tile.mates] = -np.inf
        scores = tile.scores[tile.scores > pool.min()]
        pool = np.partition(np.concatenate((pool, scores)), -count)[-count:]
    return np.sort(pool)[::-1]


@dataclass(frozen=True)
class EvalsPoint:
    """TPIR of the newer InsightFace script.

    Attributes:
        tpir: Share of the mated probes that come first and score above the threshold; NaN if it cannot be measured.
        threshold: A score of the non-mated probes; +inf if there are none.
    """

    tpir: float
    threshold: float


def evals_open_set(found: Search, targets: Sequence[float]) -> list[EvalsPoint]:
    """The rule of InsightFace's ``ijb_evals``: above the int(n * FPIR)-th largest score of n non-mated probes.

    Args:
        found: The search in one gallery.
        targets: False positive identification rates.
    """
    strangers = np.sort(found.rival[found.mate == -np.inf])[::-1]
    mate, rival = found.mate[found.mated], found.rival[found.mated]
    if not len(strangers) or not len(mate):
        return [EvalsPoint(float("nan"), np.inf) for _ in targets]
    rates = [_on_grid(target) for target in targets]
    bounds = [float(strangers[max(int(len(strangers) * rate) - 1, 0)]) for rate in rates]
    return [EvalsPoint(float(np.mean((mate > rival) & (mate > bound))), bound) for bound in bounds]


def evals_ranks(found: Sequence[Search], ranks: Sequence[int]) -> list[float]:
    """The mean rank-k of InsightFace's ``ijb_evals``: probes found in any gallery, divided by the number of all probes.

    It is no mean of the galleries' rates unless each has as many probes with a mate, and none is without.

    Args:
        found: The same probes in each gallery.
        ranks: Ranks to report.

    Returns:
        A share for each rank; NaN if no probe has a mate.

    Raises:
        ConfigError: If a rank is below 1.
    """
    check_ranks(ranks)
    places = np.concatenate([mate_rank(one)[one.mated] for one in found])
    if not len(places):
        return [float("nan")] * len(ranks)
    return [float(np.sum(places <= rank)) / len(found[0]) for rank in ranks]


def _on_grid(target: float) -> float:
    # The last digits of the grid decide int(n * FPIR), so a target that means one of its points takes them over.
    nearest = float(EVALS_GRID[np.argmin(np.abs(EVALS_GRID - target))])
    return nearest if np.isclose(nearest, target, rtol=1e-9, atol=0.0) else target
