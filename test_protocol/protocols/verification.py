"""What all 1:1 protocols share: from embeddings of pairs to a report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Self

import numpy as np

from facelab.data.base import ImageSet
from facelab.errors import DataError
from facelab.test_protocol.base import Embeddings, Metric, Protocol, Report
from facelab.test_protocol.metrics import metrics, reference_rules
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.metrics.operating_points import Scores
from facelab.test_protocol.metrics.pair_scores import Rules, ScoredPairs, check_embeddings
from facelab.test_protocol.protocols.reject_report import reject_part
from facelab.test_protocol.report.mistakes import worst_mistakes
from facelab.weights.calibration import FMRS, is_too_few, too_few

VAL_FAR = 1e-3
HISTOGRAM_BINS = 100
MAX_CURVE_POINTS = 1000


class Verification(Protocol):
    """Base of protocols that compare pairs of images.

    Args:
        name: Name of the data set in tables.
        images: Each distinct image once.
        pairs: Rows of ``images``, (P, 2).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,).
        rules: How to score and count.
        people: Number of each image's person, (N,); -1 where unknown. By default all are.

    Attributes:
        repeated: How many pairs are there already, in either order.
    """

    def __init__(
        self,
        name: str,
        images: ImageSet,
        pairs: Integers,
        same: Booleans,
        fold: Integers,
        rules: Rules,
        people: Integers | None = None,
    ) -> None:
        self.name = name
        self.images = images
        self.pairs = pairs
        self.same = same
        self.fold = fold
        self.rules = rules
        self.flip = rules.flip
        self.people = np.full(len(images), -1) if people is None else people
        # One number for each pair, whichever image comes first.
        self.repeated = len(pairs) - len(np.unique(np.sort(pairs, axis=1) @ [len(images), 1]))

    def evaluate(self, embeddings: Embeddings) -> Report:
        """Accuracy over folds, TAR at some FARs, AUC and EER of the pairs; with quality, error versus reject.

        Pairs with an image that the embeddings skip are left out and counted.

        Raises:
            DataError: If the embeddings do not fit, a value is not finite, or no pair is left.
        """
        scored = self.scored(embeddings)
        skipped = len(self.pairs) - len(scored.pairs)
        reject = reject_part(scored, embeddings, self.rules)
        left, right = self.people[scored.pairs].astype(np.int32).T
        return Report(
            self.name,
            (*verification_metrics(scored, self.rules), *reject.metrics, *self._remarks(skipped)),
            {**self.options(), **({"skipped_pairs": skipped} if skipped else {})},
            {**curves(scored), **(reject.curves or {})},
            {"score": scored.cosine.astype(np.float32), "same": scored.same, "left": left, "right": right},
            ()
            if scored.one_class
            else worst_mistakes(scored.cosine, scored.same, scored.decision_threshold, scored.pairs),
        )

    def scored(self, embeddings: Embeddings) -> ScoredPairs:
        """The pairs with their scores, without those of which an image was skipped.

        Raises:
            DataError: If the embeddings do not fit, a value is not finite, or no pair is left.
        """
        check_embeddings(embeddings, self.images)
        used = self._used(embeddings.skipped)
        return ScoredPairs.of(embeddings, self.pairs[used], self.same[used], self.fold[used], self.rules)

    def with_probes_of(self, images: ImageSet) -> Self:
        """The same pairs, the second image of each from the second half of ``images``."""
        moved = copy(self)
        moved.images, moved.pairs = images, self.pairs + np.array([0, len(self.images)])
        moved.people = np.tile(self.people, 2)
        return moved

    def options(self) -> Mapping[str, Any]:
        """What the numbers depend on, for the report."""
        repeated = {"repeated_pairs": self.repeated} if self.repeated else {}
        return {**self.rules.options(), "folds": len(np.unique(self.fold)), "pairs": len(self.same), **repeated}

    def _used(self, skipped: Booleans | None) -> Booleans:
        used = np.ones(len(self.pairs), bool)
        if skipped is not None:
            used &= ~skipped[self.pairs].any(axis=1)
        if not used.any():
            raise DataError(f"{self.name}: each of the {len(used)} pairs has an image that could not be read.")
        return used

    def _remarks(self, skipped: int) -> Iterator[Metric]:
        if self.repeated:
            note = "stand in the list more than once; every time counts"
            yield Metric("repeated pairs", float(self.repeated), unit="count", note=note)
        if skipped:
            yield Metric("skipped pairs", float(skipped), unit="count", note="left out: an image could not be read")


def verification_metrics(scored: ScoredPairs, rules: Rules) -> tuple[Metric, ...]:
    """All numbers of a 1:1 protocol; the headline first."""
    same, different = int(scored.same.sum()), int((~scored.same).sum())
    counts = (
        Metric("same pairs", float(same), unit="count"),
        Metric("different pairs", float(different), unit="count"),
    )
    if scored.one_class:
        note = f"cannot be measured: all {same + different} pairs are {'same' if same else 'different'} pairs"
        names = ["accuracy", *map(far_name, rules.fars), "AUC"]
        rates = (Metric(name, None, note=note, better="high") for name in names)
        return (*rates, Metric("EER", None, note=note, better="low"), *counts)
    return (
        *_reference_metrics(scored, rules),
        *(() if scored.fold_result is None else _accuracy_metrics(scored.fold_result)),
        *far_metrics(scored.roc, rules.fars),
        Metric("AUC", metrics.auc(scored.roc), better="high"),
        Metric("EER", metrics.eer(scored.roc), better="low"),
        *fnmr_metrics(metrics.tar_at_far(scored.roc, FMRS), different),
        *counts,
    )


def _accuracy_metrics(result: metrics.FoldResult) -> tuple[Metric, Metric]:
    note = f"± standard error over {len(result.accuracy)} folds"
    chosen = result.threshold[np.isfinite(result.threshold)]  # +inf where it is best to accept nothing
    mean, spread = (float(chosen.mean()), float(chosen.std())) if len(chosen) else (None, None)
    return (
        Metric("accuracy", result.mean, result.standard_error, note=note, better="high"),
        Metric("threshold", mean, spread, unit="score", note="cosine; mean and deviation over folds"),
    )


def far_name(far: float) -> str:
    """For example ``TAR@FAR=1e-3``."""
    mantissa, exponent = f"{far:.6e}".split("e")
    return f"TAR@FAR={float(mantissa):g}e{int(exponent)}"


def far_metrics(curve: metrics.Roc, fars: Sequence[float]) -> Iterator[Metric]:
    """True accept rate and threshold to deploy at each false accept rate."""
    for point in metrics.tar_at_far(curve, fars):
        yield far_metric(point, curve.negatives)
        yield threshold_metric(point)


def fnmr_metrics(points: Iterable[metrics.OperatingPoint], negatives: int) -> Iterator[Metric]:
    """False non-match rates at false match rates, as evaluations of products print them, with what really is reached.

    Rates at which fewer than ten false matches are to be expected are refused, the first of them in words.

    Args:
        points: By falling false match rate.
        negatives: Number of different pairs.
    """
    for point in points:
        name = far_name(point.target).replace("TAR@FAR", "FNMR@FMR")
        if is_too_few(point.target, negatives):
            yield Metric(name, None, note=f"cannot be measured: {too_few(point.target, negatives)}", better="low")
            return
        note = f"accept cosine >= {point.threshold:.4f}; real FMR {point.far:.3g}"
        yield Metric(name, 1.0 - point.tar, note=note, better="low")


def threshold_metric(point: metrics.OperatingPoint) -> Metric:
    """The threshold to deploy at a false accept rate, or why there is none."""
    name = far_name(point.target).replace("TAR", "threshold")
    if not point.measurable:
        return Metric(name, None, unit="score", note="cannot be measured: too few different pairs")
    if not np.isfinite(point.threshold):
        return Metric(name, None, unit="score", note="there is none: a different pair has the highest score of all")
    return Metric(name, point.threshold, unit="score", note=f"accept cosine >= this; real FAR {point.far:.3g}")


def far_metric(point: metrics.OperatingPoint, negatives: int) -> Metric:
    """A true accept rate, or the reason why it cannot be measured."""
    if not point.measurable:
        needed = int(np.ceil(1.0 / point.target - 1e-9))
        note = f"cannot be measured: needs {needed:,} different pairs, there are {negatives:,}"
        return Metric(far_name(point.target), None, note=note, better="high")
    return Metric(far_name(point.target), point.tar, note=f"accept cosine >= {point.threshold:.4f}", better="high")


def _reference_metrics(scored: ScoredPairs, rules: Rules) -> tuple[Metric, ...]:
    if rules.thresholds == "facexzoo":
        return _facexzoo(scored)
    if rules.thresholds == "insightface":
        return _insightface(scored)
    if rules.thresholds == "magface":
        result = reference_rules.magface_accuracy(*scored.raw_sides, scored.same, scored.fold)
        note = "MagFace's rule; ± deviation over folds"
        return (_reference_accuracy("MagFace", result, result.deviation, note),)
    return ()


def _reference_accuracy(project: str, result: metrics.FoldResult, spread: float, note: str) -> Metric:
    # Spreads are those that each project prints; they are not comparable, so the note says which it is.
    return Metric(f"accuracy ({project})", result.mean, spread, kind="reference", note=note, better="high")


def _facexzoo(scored: ScoredPairs) -> tuple[Metric, ...]:
    result = reference_rules.facexzoo_accuracy(scored.cosine, scored.same)
    note = "FaceX-Zoo's rule; ± standard error"
    empty = reference_rules.FACEXZOO_FOLDS * reference_rules.FACEXZOO_FOLD_PAIRS - len(scored.same)
    if empty:
        note += f"; its fixed 10 x 600 places leave {empty:,} empty, which it counts as pairs"
    return (_reference_accuracy("FaceX-Zoo", result, result.standard_error, note),)


def _insightface(scored: ScoredPairs) -> tuple[Metric, ...]:
    result = reference_rules.grid_accuracy(scored.squared_distance, scored.same, scored.fold)
    note = "InsightFace's rule; ± deviation over folds"
    return (
        _reference_accuracy("InsightFace", result, result.deviation, note),
        _insightface_val(scored),
        Metric("XNorm", scored.mean_norm, unit="score", kind="reference", note="mean norm of the raw embeddings"),
    )


def _insightface_val(scored: ScoredPairs) -> Metric:
    name = f"VAL@{far_name(VAL_FAR).removeprefix('TAR@')} (InsightFace)"
    try:
        val = reference_rules.val_at_far(scored.squared_distance, scored.same, scored.fold, VAL_FAR)
    except DataError as error:
        return Metric(name, None, kind="reference", note=str(error), better="high")
    note = f"interpolated threshold; really reaches a FAR of {val.far.mean():.2g}"
    return Metric(name, float(val.val.mean()), float(val.val.std()), kind="reference", note=note, better="high")


def curves(scored: ScoredPairs) -> dict[str, Floats]:
    """The arrays of `score_curves` for scored pairs."""
    return score_curves(scored.cosine, scored.same)


def score_curves(scores: Scores, same: Booleans, curve: metrics.Roc | None = None) -> dict[str, Floats]:
    """Arrays for plots: a histogram of the scores (P,), and the ROC unless all pairs are of one class.

    Args:
        scores: Cosines, (P,).
        same: Whether each pair shows one person, (P,).
        curve: The ROC, if it is known already.
    """
    result = {"score_edges": np.linspace(-1.0, 1.0, HISTOGRAM_BINS + 1)}
    for name, rows in (("same", same), ("different", ~same)):
        # By rounding a cosine may be a little beyond 1, and would be in no bin.
        counts, _ = np.histogram(np.clip(scores[rows], -1.0, 1.0), HISTOGRAM_BINS, (-1.0, 1.0))
        result[f"{name}_count"] = counts.astype(np.float64)
    if same.all() or not same.any():
        return result
    curve = metrics.roc(scores, same) if curve is None else curve
    kept = corners(curve)
    return {**result, "far": curve.far[kept], "tar": curve.tar[kept], "threshold": curve.threshold[kept]}


def corners(curve: metrics.Roc) -> Integers:
    """Rows of a ROC that its drawing needs: where it turns, at most about a thousand, dense where FAR is small."""
    turns = np.ones(len(curve.far), bool)
    for rate in (curve.far, curve.tar):
        still = rate[1:] == rate[:-1]
        turns[1:-1] &= ~(still[:-1] & still[1:])  # in the middle of a straight piece
    rows = np.flatnonzero(turns)
    if len(rows) <= MAX_CURVE_POINTS:
        return rows
    places = np.unique(np.geomspace(1, len(rows), MAX_CURVE_POINTS).astype(np.int64)) - 1
    return rows[places]
