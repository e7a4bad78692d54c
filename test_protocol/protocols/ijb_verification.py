"""IJB 1:1: template pairs from scores to numbers, curves, trials and the hardest errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facelab.errors import DataError
from facelab.test_protocol.base import FloatArray, Metric, Mistake
from facelab.test_protocol.lists.ijb_files import Identification, TemplatePairs
from facelab.test_protocol.lists.integer_lines import Rows
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.metrics.ijb_reference import nearest_tar
from facelab.test_protocol.metrics.metrics import Booleans, Integers, Roc
from facelab.test_protocol.metrics.operating_points import tar_at_far, turning_points
from facelab.test_protocol.metrics.template_scores import pair_cosines
from facelab.test_protocol.metrics.templates import Templates
from facelab.test_protocol.protocols.verification import far_metric, far_name, fnmr_metrics, threshold_metric
from facelab.test_protocol.report.mistakes import SHOWN, worst_mistakes
from facelab.weights.calibration import FMRS

HEADLINE_FAR = 1e-4


@dataclass(frozen=True)
class ScoredTemplatePairs:
    """Pairs with their cosines; pairs with a template without images are left out.

    Attributes:
        pairs: The pairs that are left, P of them.
        score: Cosine of each, float32, (P,).
        left_out: Number of pairs left out.
    """

    pairs: TemplatePairs
    score: FloatArray
    left_out: int

    @classmethod
    def of(cls, templates: Templates, pairs: TemplatePairs) -> "ScoredTemplatePairs":
        """Score pairs.

        Raises:
            DataError: If no pair is left.
        """
        left_out = 0
        if templates.empty.any():
            used = ~(templates.empty[pairs.left] | templates.empty[pairs.right])
            left_out = len(used) - int(used.sum())
            pairs = TemplatePairs(pairs.left[used], pairs.right[used], pairs.same[used])
        if not len(pairs.same):
            raise DataError(f"no pair is left: each of the {left_out:,} has a template without a readable image.")
        return cls(pairs, pair_cosines(templates.values, pairs.left, pairs.right), left_out)

    @cached_property
    def positives(self) -> FloatArray:
        """Scores of the same pairs."""
        return self.score[self.pairs.same]

    @cached_property
    def negatives(self) -> FloatArray:
        """Scores of the different pairs."""
        return self.score[~self.pairs.same]

    @property
    def one_class(self) -> bool:
        """Whether all pairs are same pairs, or all are different pairs."""
        return not len(self.positives) or not len(self.negatives)

    @cached_property
    def roc(self) -> Roc:
        """The turns of the ROC; there must be pairs of both classes."""
        return turning_points(self.positives, self.negatives)


def verification_metrics(scored: ScoredTemplatePairs, fars: Sequence[float]) -> tuple[Metric, ...]:
    """The clean numbers of 1:1, the headline (TAR at a FAR of 1e-4) first."""
    same, different = len(scored.positives), len(scored.negatives)
    counts = tuple(
        Metric(f"{name} pairs", float(n), unit="count") for name, n in (("same", same), ("different", different))
    )
    ordered = headline_first(fars)
    if scored.one_class:
        note = f"cannot be measured: all {same + different:,} pairs are {'same' if same else 'different'} pairs"
        rates = (Metric(name, None, note=note, better="high") for name in [*map(far_name, ordered), "AUC"])
        return (*rates, Metric("EER", None, note=note, better="low"), *counts)
    points = tar_at_far(scored.positives, scored.negatives, ordered)
    return (
        *(far_metric(point, different) for point in points),
        *map(threshold_metric, points),
        Metric("AUC", metrics.auc(scored.roc), better="high"),
        Metric("EER", metrics.eer(scored.roc), better="low"),
        *fnmr_metrics(tar_at_far(scored.positives, scored.negatives, FMRS), different),
        *counts,
    )


def nearest_metrics(scored: ScoredTemplatePairs, fars: Sequence[float], project: str) -> tuple[Metric, ...]:
    """What ``project`` prints as TAR@FAR: the nearest point of scikit-learn's ROC, even with too few pairs."""
    names = [f"{far_name(far)} ({project})" for far in headline_first(fars)]
    if scored.one_class:
        note = "cannot be measured: all pairs are of one kind"
        return tuple(Metric(name, None, kind="reference", note=note, better="high") for name in names)
    points = nearest_tar(scored.positives, scored.negatives, headline_first(fars))
    notes = (f"nearest point of the ROC; really at a FAR of {point.far:.3g}" for point in points)
    return tuple(
        Metric(name, point.tar, kind="reference", note=note, better="high")
        for name, point, note in zip(names, points, notes, strict=True)
    )


def headline_first(fars: Sequence[float]) -> list[float]:
    """The rates in their order, but 1e-4, which the field compares by, before all others."""
    return sorted(fars, key=lambda far: not np.isclose(far, HEADLINE_FAR, rtol=1e-9, atol=0.0))


def people_of_templates(count: int, pairs: TemplatePairs, known: Identification | None) -> Rows:
    """Number of the person of each template, int32, (T,).

    From the 1:N lists where there are any; a template that they do not name is a person of its own. Without them,
    templates that same pairs connect are one person.
    """
    if known is None:
        left, right = pairs.left[pairs.same], pairs.right[pairs.same]
        links = coo_array((np.ones(len(left), bool), (left, right)), shape=(count, count))
        return np.asarray(connected_components(links, directed=False)[1], np.int32)
    # Below 0, so that a template of its own never meets a subject's number.
    person = -1 - np.arange(count)
    for part in (*known.galleries, known.probes):
        person[part.template] = part.person
    return np.unique(person, return_inverse=True)[1].astype(np.int32)


def trials(scored: ScoredTemplatePairs, people: Rows) -> dict[str, NDArray[Any]]:
    """What statistics need of every pair."""
    pairs = scored.pairs
    return {"score": scored.score, "same": pairs.same, "left": people[pairs.left], "right": people[pairs.right]}


def mistakes(scored: ScoredTemplatePairs, template: Integers, quality: FloatArray) -> tuple[Mistake, ...]:
    """The hardest errors at the threshold of the equal error rate, each template shown by its best image.

    Args:
        scored: The pairs.
        template: Template of each image, (N,); -1 for images that are not to be shown.
        quality: Of each image, higher is better, (N,); the best of a template is shown.
    """
    if scored.one_class:
        return ()
    rows = np.concatenate((_hardest(scored.score, ~scored.pairs.same), _hardest(-scored.score, scored.pairs.same)))
    pairs = np.stack((scored.pairs.left[rows], scored.pairs.right[rows]), axis=1)
    used = np.unique(pairs)
    images = [np.flatnonzero(template == number) for number in used]
    best = np.array([image[np.argmax(quality[image])] for image in images], np.int64)
    threshold = np.full(len(rows), metrics.eer_threshold(scored.roc))
    shown = best[np.searchsorted(used, pairs)]
    return worst_mistakes(scored.score[rows].astype(np.float64), scored.pairs.same[rows], threshold, shown)


def _hardest(score: FloatArray, among: Booleans) -> Integers:
    """Rows of the highest scores among some."""
    rows = np.flatnonzero(among)
    if len(rows) <= SHOWN:
        return rows
    return rows[np.argpartition(score[rows], len(rows) - SHOWN)[-SHOWN:]]
