"""The strongest of more scores than memory holds: the k best entries of each probe, and the n highest scores of all."""

from collections.abc import Sequence

import numpy as np

from facelab.errors import in_range
from facelab.test_protocol.metrics.metrics import Floats, Integers, OperatingPoint
from facelab.test_protocol.metrics.score_tiles import NOBODY, Matrix, Tile

ROUNDING = 1e-12


class BestEntries:
    """The ``count`` best scores of each probe, exactly, from tiles.

    Args:
        probes: P, the number of all probe vectors.
        count: K.

    Attributes:
        scores: Rising, (P, K); -inf in front where a probe met fewer than K entries.
        entry: Gallery row of the best, (P,); -1 where a probe met none.
    """

    def __init__(self, probes: int, count: int) -> None:
        self.scores: Floats = np.full((probes, count), -np.inf)
        self.entry: Integers = np.full(probes, NOBODY, np.int64)

    def add(self, tile: Tile) -> None:
        """Take in the scores of a tile."""
        top = tile.scores.max(axis=1)
        for row in np.flatnonzero(top > self.scores[tile.rows, -1]):
            self.entry[tile.rows[row]] = tile.columns[tile.scores[row].argmax()]
        better = np.flatnonzero(top > self.scores[tile.rows, 0])
        if len(better):
            probes = tile.rows[better]
            new = self._candidates(tile.scores, better, self.scores[probes, 0].tolist())
            # For all probes of the tile at once, and not in a loop over probes.
            merged = np.concatenate((self.scores[probes], new), axis=1)
            self.scores[probes] = np.sort(merged, axis=1)[:, -self.scores.shape[1] :]

    def _candidates(self, scores: Matrix, rows: Integers, floors: list[float]) -> Floats:
        """At most K scores above its floor from each of some rows, padded with -inf."""
        count = self.scores.shape[1]
        found = [_highest(scores[row], floor, count) for row, floor in zip(rows, floors, strict=True)]
        lengths = np.array([len(part) for part in found])
        result = np.full((len(rows), int(lengths.max())), -np.inf)
        result[np.arange(result.shape[1]) < lengths[:, None]] = np.concatenate(found)
        return result


def _highest(scores: Matrix, floor: float, count: int) -> Matrix:
    higher = scores[scores > floor]
    return higher if len(higher) <= count else np.partition(higher, -count)[-count:]


class HighestScores:
    """The ``count`` highest of any number of scores, exactly, in memory for about three times as many.

    Args:
        count: How many to keep, at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._floor = -np.inf  # that many are at least this
        self._parts: list[Matrix] = []
        self._held = 0

    def add(self, scores: Matrix, rows: Integers) -> None:
        """Take in some rows of an array of scores, (R, C)."""
        for row in rows[scores.max(axis=1)[rows] > self._floor]:
            higher = scores[row][scores[row] > self._floor]
            self._parts.append(higher)
            self._held += len(higher)
            # Only when as many again have come, so that shrinking costs each score a constant time.
            if self._held > 2 * self.count + scores.shape[1]:
                self._shrink()

    def falling(self) -> Floats:
        """The highest scores, in falling order; fewer if there were fewer."""
        self._shrink()
        return np.sort(np.concatenate([np.empty(0), *self._parts]))[::-1]

    def _shrink(self) -> None:
        if self._held <= self.count:
            return
        kept = np.partition(np.concatenate(self._parts), -self.count)[-self.count :]
        self._parts, self._held, self._floor = [kept], self.count, float(kept.min())


def scores_needed(fars: Sequence[float], negatives: int) -> int:
    """How many of the highest different-pair scores `tar_from_highest` needs.

    Raises:
        ConfigError: If a rate is not in (0, 1].
    """
    return 1 + max(_allowed(in_range("a target FAR", far, 0.0, 1.0, low_open=True), negatives) for far in fars)


def tar_from_highest(genuine: Floats, highest: Floats, negatives: int, fars: Sequence[float]) -> list[OperatingPoint]:
    """Operating points as `metrics.tar_at_far` gives them, from the highest scores of different pairs alone.

    Args:
        genuine: Scores of the same pairs, (M,), at least one.
        highest: The `scores_needed` highest scores of different pairs, falling.
        negatives: Number of all different pairs.
        fars: False accept rates to keep to.
    """
    return [_operating_point(genuine, highest, negatives, far) for far in fars]


def _operating_point(genuine: Floats, highest: Floats, negatives: int, far: float) -> OperatingPoint:
    allowed = _allowed(far, negatives)
    threshold = float(np.nextafter(highest[allowed], np.inf)) if allowed < len(highest) else -np.inf
    return OperatingPoint(
        target=far,
        tar=float(np.mean(genuine >= threshold)),
        far=float(np.count_nonzero(highest >= threshold) / max(negatives, 1)),
        threshold=threshold,
        measurable=negatives * far >= 1.0 - 1e-9,
    )


def _allowed(far: float, negatives: int) -> int:
    # What is whole but for rounding counts as whole: 0.29 * 100 is 28.999999999999996.
    return int(np.floor(far * negatives * (1.0 + ROUNDING)))
