"""What all 1:N protocols put into a `Report`: metrics of ranks and of the open set, CMC, trials and hardest errors."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facelab.test_protocol.base import Metric, Mistake
from facelab.test_protocol.metrics.identification import OpenSetPoint, Search, closed_set, cmc, mate_rank
from facelab.test_protocol.metrics.metrics import Floats, Integers
from facelab.test_protocol.report.mistakes import worst_of

Kind = Literal["correct", "reference"]
NO_MATE = "cannot be measured: no probe has a mate in the gallery"


def share(name: str, value: float, note: str = "", *, kind: Kind = "correct", why_not: str = NO_MATE) -> Metric:
    """A rate of which more is better, as a metric; NaN becomes a metric without a value that says why."""
    measured = not math.isnan(value)
    return Metric(name, value if measured else None, kind=kind, note=note if measured else why_not, better="high")


def rank_metrics(found: Search, ranks: Sequence[int]) -> tuple[Metric, ...]:
    """``rank-k`` of the closed set for each k."""
    return tuple(share(f"rank-{rank}", rate) for rank, rate in zip(ranks, closed_set(found, ranks), strict=True))


def fpir_name(target: float) -> str:
    """For example ``TPIR@FPIR=0.01``."""
    return f"TPIR@FPIR={target:g}"


def open_set_metrics(points: Sequence[OpenSetPoint], strangers: int) -> tuple[Metric, ...]:
    """``TPIR@FPIR`` at each point, or why it cannot be measured.

    Args:
        points: From `open_set`.
        strangers: Number of the non-mated probes.
    """
    return tuple(_open_set_metric(point, strangers) for point in points)


def _open_set_metric(point: OpenSetPoint, strangers: int) -> Metric:
    if not point.measurable:
        needed = math.ceil(1.0 / point.target - 1e-9)
        note = f"cannot be measured: needs {needed:,} probes without a mate, there are {strangers:,}"
        return Metric(fpir_name(point.target), None, note=note, better="high")
    return share(fpir_name(point.target), point.tpir, f"rank 1 and score >= {point.threshold:.4f}")


def count_metrics(found: Search, gallery: int, entries: str) -> tuple[Metric, ...]:
    """How many probes and gallery entries there were; ``entries`` names the latter."""
    mated = len(found.mated)
    counts = {"probes with a mate": mated, "probes without a mate": len(found) - mated, entries: gallery}
    return tuple(Metric(name, float(count), unit="count") for name, count in counts.items())


def cmc_curves(found: Search, upto: int) -> dict[str, Floats]:
    """Curves ``rank`` and ``rank_rate`` up to a rank; none without a probe that has a mate."""
    if not len(found.mated):
        return {}
    rank, rate = cmc(found, upto)
    return {"rank": rank, "rank_rate": rate}


def rank_trials(found: Search, person: Integers) -> dict[str, NDArray[Any]]:
    """What statistics need of every probe: ``person``, ``rank`` of its best mate, and ``score`` of its best entry.

    Args:
        found: The search.
        person: Number of each probe's person, (P,).
    """
    best = np.maximum(found.mate, found.rival).astype(np.float32)
    return {"person": person.astype(np.int32), "rank": mate_rank(found).astype(np.int32), "score": best}


def hardest(found: Search, probe_image: Integers, gallery_image: Integers) -> tuple[Mistake, ...]:
    """The hardest errors: mates missed at rank 1 with the lowest scores, and strangers ahead with the highest.

    Args:
        found: The search.
        probe_image: Row of each probe in the protocol's images, (P,).
        gallery_image: Row of each gallery entry there, (G,).
    """
    # A tie counts against the probe, so it is an error too.
    wrong = np.flatnonzero(found.rival >= found.mate)
    missed, matched = wrong[found.mate[wrong] > -np.inf], wrong[found.rival_entry[wrong] >= 0]
    pairs = (
        *(_mistakes("false match", probe_image, gallery_image, matched, found.rival_entry, found.rival)),
        *(_mistakes("false non-match", probe_image, gallery_image, missed, found.mate_entry, found.mate)),
    )
    return worst_of(pairs)


def _mistakes(
    kind: Literal["false match", "false non-match"],
    probe_image: Integers,
    gallery_image: Integers,
    rows: Integers,
    entry: Integers,
    score: Floats,
) -> Iterator[Mistake]:
    for row in rows:
        yield Mistake(kind, int(probe_image[row]), int(gallery_image[entry[row]]), float(score[row]))
