"""MegaFace's question: how many strangers score above one person's other images, and above a genuine pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facelab.test_protocol.metrics.mate_pairs import MatePairs
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers, OperatingPoint
from facelab.test_protocol.metrics.score_tiles import Faces, Matrix, tiles
from facelab.test_protocol.metrics.strongest import BestEntries, HighestScores, scores_needed, tar_from_highest


@dataclass(frozen=True)
class Distracted:
    """Genuine pairs among distractors.

    Attributes:
        pairs: The genuine pairs that count.
        score: Score of each, (M,).
        best: Scores of the best distractors of each probe, rising, (N, K).
        entry: Row of the best distractor of each probe, (N,).
        points: Verification at the false accept rates asked for.
        distractors: Number of the distractors that count.
        negatives: Number of all pairs of a probe and a distractor.
    """

    pairs: MatePairs
    score: Floats
    best: Floats
    entry: Integers
    points: tuple[OperatingPoint, ...]
    distractors: int
    negatives: int

    def places(self) -> Integers:
        """Place of each pair's mate among its distractors, from 1, ties against it; K + 1 for all beyond K, (M,)."""
        return np.asarray(1 + np.count_nonzero(self.best[self.pairs.probe] >= self.score[:, None], axis=1))

    def rates(self, ranks: Sequence[int]) -> list[float]:
        """Share of the pairs found within each rank; NaN where there are fewer distractors, or no pairs."""
        places = self.places()
        measurable = len(places) > 0
        return [
            float(np.mean(places <= rank)) if measurable and rank <= self.distractors else float("nan")
            for rank in ranks
        ]


def against_distractors(
    gallery: Matrix,
    probe: Matrix,
    pairs: MatePairs,
    clean: Booleans,
    distractors: Faces,
    ranks: Sequence[int],
    fars: Sequence[float],
) -> Distracted:
    """Compare all probes with all distractors, a tile at a time.

    Args:
        gallery: Vectors of the images that stand in the gallery, (N, D).
        probe: Vectors of the same images as they are searched (masked, or the same), (N, D).
        pairs: Genuine pairs that count.
        clean: Probes that take part in verification, (N,).
        distractors: Those that count.
        ranks: Ranks that will be asked for.
        fars: False accept rates.

    Raises:
        ConfigError: If a rate is not in (0, 1].
        DataError: If there is no distractor, or the vectors do not fit.
    """
    negatives = int(clean.sum()) * len(distractors)
    best = BestEntries(len(probe), max(ranks))
    highest = HighestScores(scores_needed(fars, negatives)) if fars else None
    # One pass for all ranks. FaceX-Zoo keeps the 3,530 x 1,000,000 scores, 14 GB, and selects from them anew for each
    # rank.
    for tile in tiles(Faces.strangers(probe), distractors):
        best.add(tile)
        if highest is not None:
            highest.add(tile.scores, np.flatnonzero(clean[tile.rows]))
    score = pairs.scores(gallery, probe)
    points = tar_from_highest(score, highest.falling(), negatives, fars) if highest and len(pairs) else []
    return Distracted(pairs, score, best.scores, best.entry, tuple(points), len(distractors), negatives)


def facexzoo_rates(
    measured: Distracted, gallery: Matrix, probe: Matrix, pairs: MatePairs, zeroed: int, ranks: Sequence[int]
) -> list[float]:
    """FaceX-Zoo's rate at each rank: a pair is found at k where it scores at least as the k-th best distractor.

    Args:
        measured: Among the distractors that are not noisy; of all probes, noisy ones replaced.
        gallery: Vectors of the gallery images, noisy ones replaced, (N, D).
        probe: Vectors of the probes, noisy ones replaced, (N, D).
        pairs: All genuine pairs, those of noisy images too.
        zeroed: Number of noisy distractors, whose vectors FaceX-Zoo sets to zero; they stay and score 0.
        ranks: Which ranks.

    Returns:
        A rate for each rank; NaN where there are fewer distractors (FaceX-Zoo stops there), or no pairs.
    """
    score = pairs.scores(gallery, probe)
    # Of the zeros, no more than are ranked can be among the best.
    zeros = np.zeros((len(probe), min(zeroed, measured.best.shape[1])))
    best = np.sort(np.concatenate((measured.best, zeros), axis=1), axis=1)
    measurable = len(pairs) > 0
    return [
        float(np.mean(score >= best[pairs.probe, -rank]))
        if measurable and rank <= measured.distractors + zeroed
        else float("nan")
        for rank in ranks
    ]
