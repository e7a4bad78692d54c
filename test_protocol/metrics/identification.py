"""1:N metrics by their clean definitions: ranks, open-set identification and average precision, in bounded memory.

A score is a dot product of vectors as they are given, higher means more alike. Ties count against the probe, so that a
network that gives the same vector for every face finds nobody.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from facelab.errors import ConfigError, in_range
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.metrics.score_tiles import BLOCK, NOBODY, Faces, Matrix, Tile, tiles

Visitor = Callable[[Tile], None]


@dataclass(frozen=True)
class Search:
    """What searching P probes in a gallery of G entries gives, without keeping the P x G scores.

    Attributes:
        mate: Best score among the entries of the probe's own person; -inf where it has none, (P,).
        rival: Best score among all other entries; -inf if there are none, (P,).
        above: Entries of other people that score strictly above ``mate``, (P,); 0 without a mate.
        tied: Entries of other people that score exactly as ``mate``, (P,); 0 without a mate.
        mate_entry: Gallery row of ``mate``, (P,); -1 where there is none.
        rival_entry: Gallery row of ``rival``, (P,); -1 where there is none.
    """

    mate: Floats
    rival: Floats
    above: Integers
    tied: Integers
    mate_entry: Integers
    rival_entry: Integers

    def __len__(self) -> int:
        """Number of probes."""
        return len(self.mate)

    @property
    def mated(self) -> Integers:
        """Rows of the probes that have a mate."""
        return np.flatnonzero(self.mate > -np.inf)


@dataclass(frozen=True)
class Ranking:
    """A `Search` with the place of every mate of each probe, not only of the best.

    Attributes:
        found: The search.
        score: Scores of the probe's mates, falling, -inf where it has fewer, (P, K).
        above: Entries of other people that score strictly above each mate, (P, K).
        tied: Entries of other people that score exactly as each mate, (P, K).
    """

    found: Search
    score: Floats
    above: Integers
    tied: Integers

    @property
    def place(self) -> Integers:
        """Place of each mate in the whole list, from 1, ties against it; 0 where there is none, (P, K)."""
        number = np.arange(1, self.score.shape[1] + 1)
        return np.where(self.score > -np.inf, number + self.above + self.tied, 0)

    def average_precision(self) -> Floats:
        """Mean over the mates of the precision at each, (P,); NaN for a probe without a mate."""
        place = self.place
        number = np.arange(1, place.shape[1] + 1)
        return _mean_where(place > 0, number / np.maximum(place, 1))

    def trapezoid_precision(self) -> Floats:
        """Area under the polygon of precision over recall that starts at (0, 1), (P,); NaN without a mate.

        The rule of the Market-1501 and TinyFace evaluation scripts.
        """
        place = self.place
        number = np.arange(1, place.shape[1] + 1)
        before = np.where(place > 1, (number - 1) / np.maximum(place - 1, 1), 1.0)
        return _mean_where(place > 0, (before + number / np.maximum(place, 1)) / 2.0)


def _mean_where(mask: Booleans, values: Floats) -> Floats:
    count = mask.sum(axis=1)
    sums = np.where(mask, values, 0.0).sum(axis=1)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def search(
    probe: Matrix, gallery: Matrix, probe_person: Integers, gallery_person: Integers, *, block: int = BLOCK
) -> Search:
    """Search each probe in the gallery.

    Args:
        probe: As they are to be compared (callers normalise), float32 or float64, (P, D).
        gallery: The same, (G, D).
        probe_person: Number of each probe's person, (P,); -1 for nobody, who has no mate.
        gallery_person: Number of each entry's person, (G,); -1 for a distractor.
        block: Probes and gallery entries that are compared at once; memory is ``block`` squared scores.

    Raises:
        ConfigError: If ``block`` is not positive.
        DataError: If a side is empty, its shapes do not fit, a value is not finite, or the sides differ in D.
    """
    return _ranked(Faces(probe, probe_person), Faces(gallery, gallery_person), block, deepest=1).found


def rank_mates(
    probe: Matrix,
    gallery: Matrix,
    probe_person: Integers,
    gallery_person: Integers,
    *,
    block: int = BLOCK,
    also: Visitor | None = None,
) -> Ranking:
    """As `search`, and in the same pass the place of every mate, for average precision.

    Args:
        probe: As for `search`, like all that follow.
        gallery: (G, D).
        probe_person: (P,).
        gallery_person: (G,).
        block: Side of a tile.
        also: Gets every tile too, with -inf for the scores of mates.
    """
    return _ranked(Faces(probe, probe_person), Faces(gallery, gallery_person), block, also=also)


def average_precision(
    probe: Matrix, gallery: Matrix, probe_person: Integers, gallery_person: Integers, *, block: int = BLOCK
) -> tuple[float, Floats]:
    """Mean average precision over the probes with a mate, and each probe's, (P,), NaN for one without a mate.

    The mean is NaN if no probe has a mate. Arguments and refusals are those of `search`.
    """
    each = rank_mates(probe, gallery, probe_person, gallery_person, block=block).average_precision()
    return mean_known(each), each


def mean_known(values: Floats) -> float:
    """Mean of the values that are numbers; NaN if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ranked(
    probe: Faces, gallery: Faces, block: int, deepest: int | None = None, also: Visitor | None = None
) -> Ranking:
    # Two passes, since what lies above a mate can be counted only when the mate's score is known. Both compute the same
    # tiles, so that a tie is one to the last bit.
    score, entry = _mates_of(tiles(probe, gallery, block=block, mates_only=True), len(probe), deepest)
    against = _Rivals(score)
    for tile in tiles(probe, gallery, block=block):
        against.add(tile)
        if also is not None:
            also(tile)
    found = Search(score[:, 0], against.best, against.above[:, 0], against.tied[:, 0], entry[:, 0], against.entry)
    return Ranking(found, score, against.above, against.tied)


def _mates_of(met: Iterator[Tile], probes: int, deepest: int | None) -> tuple[Floats, Integers]:
    """Scores (falling, padded with -inf) and gallery rows (padded with -1) of each probe's mates, (P, K), K >= 1."""
    parts = [_mate_pairs(tile) for tile in met]
    rows, entries = (np.concatenate([np.empty(0, np.int64), *(part[at] for part in parts)]) for at in (0, 1))
    scores = np.concatenate([np.empty(0), *(part[2] for part in parts)])
    order = np.lexsort((-scores, rows))
    rows = rows[order]
    number = np.arange(len(rows)) - np.searchsorted(rows, rows)  # of the mate among its probe's mates
    depth = int(number.max(initial=0)) + 1 if deepest is None else deepest
    kept = number < depth
    score, entry = np.full((probes, depth), -np.inf), np.full((probes, depth), NOBODY, np.int64)
    score[rows[kept], number[kept]] = scores[order][kept]
    entry[rows[kept], number[kept]] = entries[order][kept]
    return score, entry


def _mate_pairs(tile: Tile) -> tuple[Integers, Integers, Floats]:
    row, column = np.nonzero(np.zeros_like(tile.scores) if tile.mates is None else tile.mates)
    return tile.rows[row], tile.columns[column], tile.scores[row, column].astype(np.float64)


class _Rivals:
    """Counts, tile by tile, how the entries of other people compare with the scores of the mates, (P, K)."""

    def __init__(self, mate: Floats) -> None:
        self.mate = mate
        self.depth = np.count_nonzero(mate > -np.inf, axis=1)
        self.lowest = np.where(mate > -np.inf, mate, np.inf).min(axis=1)  # nothing to count without a mate
        self.best, self.entry = np.full(len(mate), -np.inf), np.full(len(mate), NOBODY, np.int64)
        self.above, self.tied = np.zeros(mate.shape, np.int64), np.zeros(mate.shape, np.int64)

    def add(self, tile: Tile) -> None:
        """Count the entries of one tile."""
        if tile.mates is not None:
            tile.scores[tile.mates] = -np.inf
        top = tile.scores.max(axis=1)
        for row in np.flatnonzero(top > self.best[tile.rows]):
            self.entry[tile.rows[row]] = tile.columns[tile.scores[row].argmax()]
        self.best[tile.rows] = np.maximum(self.best[tile.rows], top)
        for row in np.flatnonzero(top >= self.lowest[tile.rows]):
            self._count(int(tile.rows[row]), tile.scores[row])

    def _count(self, probe: int, scores: Matrix) -> None:
        high = np.sort(scores[scores >= self.lowest[probe]])  # few, where the network is good
        mates = self.mate[probe, : self.depth[probe]].astype(scores.dtype)
        not_above = high.searchsorted(mates, side="right")
        self.above[probe, : len(mates)] += len(high) - not_above
        self.tied[probe, : len(mates)] += not_above - high.searchsorted(mates)


def mate_rank(found: Search) -> Integers:
    """Place of each probe's best mate, from 1, ties against it; 0 for a probe without a mate, (P,)."""
    return np.where(found.mate > -np.inf, 1 + found.above + found.tied, 0)


def closed_set(found: Search, ranks: Sequence[int]) -> list[float]:
    """Share of the probes with a mate that have one among the k best entries, for each k; NaN if none has a mate.

    Raises:
        ConfigError: If a rank is below 1.
    """
    check_ranks(ranks)
    place = mate_rank(found)[found.mated]
    return [float(np.mean(place <= rank)) if len(place) else float("nan") for rank in ranks]


def check_ranks(ranks: Sequence[int]) -> tuple[int, ...]:
    """The ranks as they are.

    Raises:
        ConfigError: If there is none, or one is below 1.
    """
    if not ranks or min(ranks) < 1:
        raise ConfigError(f"ranks are {list(ranks)}, but at least one is needed, and a rank is at least 1.")
    return tuple(ranks)


def cmc(found: Search, upto: int) -> tuple[Floats, Floats]:
    """Cumulative match characteristic: ranks 1 to ``upto``, and the share of mated probes found within each."""
    rank = np.arange(1, upto + 1)
    return rank.astype(np.float64), np.array(closed_set(found, rank.tolist()), np.float64)


@dataclass(frozen=True)
class OpenSetPoint:
    """The true positive identification rate whose false positive identification rate does not exceed a target.

    Attributes:
        target: The false positive identification rate asked for.
        tpir: Share of the mated probes whose mate scores above all others and at least the threshold; NaN if no probe
            has a mate.
        fpir: Share of the non-mated probes that are accepted, at most ``target``; NaN if all have a mate.
        threshold: The smallest that keeps to ``target``: just above the next non-mated probe; -inf if there is none.
        measurable: Whether there are at least ``1 / target`` non-mated probes.
    """

    target: float
    tpir: float
    fpir: float
    threshold: float
    measurable: bool


def open_set(found: Search, targets: Sequence[float]) -> list[OpenSetPoint]:
    """Operating points at some false positive identification rates; probes without a mate are the non-mated ones.

    Raises:
        ConfigError: If a target is not in (0, 1].
    """
    strangers = np.sort(found.rival[found.mate == -np.inf])[::-1]
    for target in targets:
        in_range("a target FPIR", target, 0.0, 1.0, low_open=True)
    return [_open_set_point(found, strangers, target) for target in targets]


def _open_set_point(found: Search, strangers: Floats, target: float) -> OpenSetPoint:
    # 0.29 * 100 is 28.999999999999996: what is whole but for rounding counts as whole.
    allowed = int(np.floor(target * len(strangers) * (1.0 + 1e-12)))
    threshold = float(np.nextafter(strangers[allowed], np.inf)) if allowed < len(strangers) else -np.inf
    mate, rival = found.mate[found.mated], found.rival[found.mated]
    hit = (mate > rival) & (mate >= threshold)
    return OpenSetPoint(
        target=target,
        tpir=float(hit.mean()) if len(hit) else float("nan"),
        fpir=float(np.mean(strangers >= threshold)) if len(strangers) else float("nan"),
        threshold=threshold,
        measurable=len(strangers) * target >= 1.0 - 1e-9,
    )
