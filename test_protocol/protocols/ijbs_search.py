"""From the templates of one IJB-S protocol to its numbers: closed set, open set, and those of published programs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import Metric
from facelab.test_protocol.lists.ijbs_files import Task, Template
from facelab.test_protocol.metrics.identification import OpenSetPoint, Search, closed_set, open_set, search
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.metrics.score_tiles import NOBODY
from facelab.test_protocol.protocols.identification_report import fpir_name

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)
LOST = -2.0  # below every cosine: the score of what cannot be found
NEVER = 1 << 30  # entries before such a mate
REFERENCE_STEP = 1e-8

VectorsOf = Callable[[Sequence[Template]], Floats]


@dataclass(frozen=True)
class Searched:
    """The probes of one protocol, searched for.

    Attributes:
        name: Of the protocol.
        person: Number of each probe's subject, (P,).
        closed: Search in both galleries as one.
        apart: Search in G1 and in G2.
        gallery: Entries of ``closed``, in order: the templates that have an image.
        empty: Templates without an image, probes and entries.
    """

    name: str
    person: Integers
    closed: Search
    apart: tuple[Search, Search]
    gallery: tuple[Template, ...]
    empty: int

    @property
    def met(self) -> Search:
        """`closed` without the mates that have no image: what there is to look at."""
        return replace(self.closed, mate=np.where(self.closed.mate_entry == NOBODY, -np.inf, self.closed.mate))


def search_task(task: Task, vectors_of: VectorsOf, number: Mapping[str, int]) -> Searched:
    """Search for all probes.

    Args:
        task: One of the five protocols.
        vectors_of: Unit vectors of some templates, zeros where there is no image.
        number: Number of each subject.

    Raises:
        DataError: If no template of a gallery has an image.
    """
    probe, person = vectors_of(task.probes), _people(task.probes, number)
    sides = [(vectors_of(gallery), _people(gallery, number)) for gallery in task.galleries]
    for place, (vectors, _) in enumerate(sides, 1):
        if not vectors.any():
            raise DataError(f"{task.name}: no template of gallery G{place} has an image.")
    both = np.concatenate([side[0] for side in sides]), np.concatenate([side[1] for side in sides])
    first, second, closed = (_search(probe, person, *side) for side in (*sides, both))
    entries = (*task.galleries[0], *task.galleries[1])
    present = np.flatnonzero(_has_image(both[0]))
    gallery = tuple(entries[row] for row in present.tolist())
    empty = len(entries) - len(present) + int(np.sum(~_has_image(probe)))
    return Searched(task.name, person, closed, (first, second), gallery, empty)


def _people(templates: Sequence[Template], number: Mapping[str, int]) -> Integers:
    return np.array([number[template.subject] for template in templates], np.int64)


def _search(probe: Floats, person: Integers, gallery: Floats, gallery_person: Integers) -> Search:
    """A search in which a template without an image, a row of zeros, matches nobody."""
    there = _has_image(gallery)
    found = search(probe, gallery[there], person, gallery_person[there])
    return _without_empty(found, ~_has_image(probe), np.isin(person, gallery_person))


def _has_image(vectors: Floats) -> Booleans:
    return np.asarray(vectors.any(axis=1), bool)


def _without_empty(found: Search, empty: Booleans, has_mate: Booleans) -> Search:
    """The mate of an empty probe, or a mate that is empty itself, stays a mate, but is never found."""
    # In published programs such a template is a vector of zeros: all of its scores tie, and whether it is found depends
    # on the order in which they are sorted.
    lost = has_mate & (empty | (found.mate == -np.inf))
    return replace(
        found,
        mate=np.where(lost, LOST, found.mate),
        above=np.where(lost, NEVER, found.above),
        tied=np.where(lost, 0, found.tied),
        mate_entry=np.where(lost, NOBODY, found.mate_entry),
        # A stranger without an image is accepted at no threshold.
        rival=np.where(empty & ~has_mate, LOST, found.rival),
        rival_entry=np.where(empty, NOBODY, found.rival_entry),
    )


def reference_open_set(found: Search, target: float) -> OpenSetPoint:
    """The open set as AdaFace and PETALface count it: the threshold lies on the score of a stranger, who is accepted.

    It is the k-th largest best score of a stranger with k = floor(strangers x target); where that is 0, the largest
    plus 1e-8. The clean definition takes the smallest threshold with as few strangers, just above the next one.

    Raises:
        DataError: If every probe has a mate.
    """
    strangers = np.sort(found.rival[found.mate == -np.inf])[::-1]
    if not len(strangers):
        raise DataError("the open set needs probes without a mate, but every probe has one.")
    count = int(len(strangers) * target)
    threshold = float(strangers[count - 1]) if count else float(strangers[0]) + REFERENCE_STEP
    mate, rival = found.mate[found.mated], found.rival[found.mated]
    return OpenSetPoint(
        target=target,
        tpir=float(np.mean((mate > rival) & (mate >= threshold))),
        fpir=float(np.mean(strangers >= threshold)),
        threshold=threshold,
        measurable=len(strangers) * target >= 1.0 - 1e-9,
    )


def task_metrics(task: Searched, kind: Literal["correct", "reference"]) -> list[Metric]:
    """Rank 1, 5 and 10, then TPIR at FPIR 1 and 10 % as the mean of both galleries."""
    end = " (reference)" if kind == "reference" else ""
    rates = closed_set(task.closed, RANKS)
    ranks = [
        Metric(f"{task.name} rank-{k}{end}", rate, kind=kind, better="high")
        for k, rate in zip(RANKS, rates, strict=True)
    ]
    if kind == "reference":
        points = [tuple(reference_open_set(found, target) for found in task.apart) for target in FPIRS]
        return ranks + [_reference_metric(task.name, *point) for point in points]
    points = list(zip(*(open_set(found, FPIRS) for found in task.apart), strict=True))
    return ranks + [_open_metric(task, *point) for point in points]


def _open_metric(task: Searched, first: OpenSetPoint, second: OpenSetPoint) -> Metric:
    name = f"{task.name} {fpir_name(first.target)}"
    if not (first.measurable and second.measurable):
        needed = int(np.ceil(1.0 / first.target - 1e-9))
        least = min(int(np.sum(found.mate == -np.inf)) for found in task.apart)
        note = f"cannot be measured: needs {needed:,} probes without a mate in each gallery, there are {least:,}"
        return Metric(name, None, note=note, better="high")
    note = f"G1 {100 * first.tpir:.2f}, G2 {100 * second.tpir:.2f}"
    return Metric(name, (first.tpir + second.tpir) / 2, note=note, better="high")


def _reference_metric(task: str, first: OpenSetPoint, second: OpenSetPoint) -> Metric:
    note = f"threshold on a stranger's score; really reaches FPIR {first.fpir:.2g} and {second.fpir:.2g}"
    name = f"{task} {fpir_name(first.target)} (reference)"
    return Metric(name, (first.tpir + second.tpir) / 2, kind="reference", note=note, better="high")
