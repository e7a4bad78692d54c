"""What MegaFace's numbers look like in a `Report`: verification, the curve of ranks, trials and the hardest errors."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.test_protocol.base import Metric, Mistake
from facelab.test_protocol.metrics.metrics import Floats
from facelab.test_protocol.protocols.distractors import Distracted
from facelab.test_protocol.protocols.verification import far_metric
from facelab.test_protocol.report.mistakes import SHOWN, worst_of


def verification_at(prefix: str, suffix: str, found: Distracted) -> Iterator[Metric]:
    """True accept rates at the false accept rates that were asked for; their names get a prefix and a suffix."""
    for point in found.points:
        metric = far_metric(point, found.negatives)
        yield replace(metric, name=f"{prefix}{metric.name}{suffix}")


def rank_curve(found: Distracted) -> dict[str, Floats]:
    """Curves ``rank`` and ``rank_rate`` up to the largest rank that was asked for and can be measured."""
    ranks = np.arange(1, min(found.best.shape[1], found.distractors) + 1)
    if not len(found.pairs):
        return {}
    return {"rank": ranks.astype(np.float64), "rank_rate": np.array(found.rates(ranks.tolist()))}


def megaface_trials(found: Distracted) -> dict[str, NDArray[Any]]:
    """``person`` and ``rank`` of every genuine pair; all ranks beyond the largest asked for are one more than it."""
    return {"person": found.pairs.person.astype(np.int32), "rank": found.places().astype(np.int32)}


def megaface_mistakes(found: Distracted, first_distractor: int) -> tuple[Mistake, ...]:
    """Genuine pairs of the lowest scores that a distractor beats, and distractors of the highest scores that beat one.

    Args:
        found: With FaceScrub's images as the first rows of the protocol's images.
        first_distractor: Row of the first distractor there.
    """
    missed = np.flatnonzero(found.places() > 1)
    worst = missed[np.argsort(found.score[missed], kind="stable")][:SHOWN]
    beaten = np.unique(found.pairs.probe[missed])
    top = found.best[:, -1]
    ahead = beaten[np.argsort(-top[beaten], kind="stable")][:SHOWN]
    pairs = found.pairs
    return worst_of(
        (
            *(
                Mistake("false non-match", int(pairs.probe[row]), int(pairs.gallery[row]), float(found.score[row]))
                for row in worst
            ),
            *(
                Mistake("false match", int(row), first_distractor + int(found.entry[row]), float(top[row]))
                for row in ahead
            ),
        )
    )
