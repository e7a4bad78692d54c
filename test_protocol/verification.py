"""What all 1:1 protocols share: from embeddings of pairs to a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from facelab.data.base import ImageSet
from facelab.errors import ConfigError, DataError, one_of
from facelab.test_protocol import metrics, reference_rules
from facelab.test_protocol.base import Embeddings, Metric, Protocol, Report
from facelab.test_protocol.metrics import Booleans, Floats, Integers

Thresholds = Literal["exact", "facexzoo", "insightface", "magface"]
Fusion = Literal["sum", "normalised_sum"]
RULES: tuple[Thresholds, ...] = ("exact", "facexzoo", "insightface", "magface")
FUSIONS: tuple[Fusion, ...] = ("sum", "normalised_sum")
DEFAULT_FARS = (1e-3, 1e-2, 1e-1)
VAL_FAR = 1e-3
HISTOGRAM_BINS = 100
MAX_CURVE_POINTS = 1000


@dataclass(frozen=True)
class Rules:
    """How pairs are scored and counted.

    Attributes:
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How: ``sum`` adds them as they are (InsightFace), ``normalised_sum`` gives each unit length before
            (PETALface).
        thresholds: ``exact`` for the clean definition alone; ``facexzoo``, ``insightface`` or ``magface`` put the
            number of that project's evaluator first, with the clean one beside it.
        fars: False accept rates to measure the true accept rate at.
    """

    flip: bool = False
    fusion: Fusion = "sum"
    thresholds: Thresholds = "exact"
    fars: tuple[float, ...] = DEFAULT_FARS

    def __post_init__(self) -> None:
        one_of("fusion", self.fusion, FUSIONS)
        one_of("thresholds", self.thresholds, RULES)
        for far in self.fars:
            if not 0.0 < far <= 1.0:
                raise ConfigError(f"fars: {far!r} is not in (0, 1].")

    def options(self) -> dict[str, Any]:
        """The settings for a report."""
        fusion = {"fusion": self.fusion} if self.flip else {}
        return {"flip": self.flip, **fusion, "thresholds": self.thresholds, "fars": list(self.fars)}


class Verification(Protocol):
    """Base of protocols that compare pairs of images.

    Args:
        name: Name of the data set in tables.
        images: Each distinct image once.
        pairs: Rows of ``images``, (P, 2).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,).
        rules: How to score and count.
    """

    def __init__(
        self, name: str, images: ImageSet, pairs: Integers, same: Booleans, fold: Integers, rules: Rules
    ) -> None:
        self.name = name
        self.images = images
        self.pairs = pairs
        self.same = same
        self.fold = fold
        self.rules = rules
        self.flip = rules.flip

    def evaluate(self, embeddings: Embeddings) -> Report:
        """Accuracy over folds, TAR at some FARs, AUC and EER of the pairs."""
        fused = fuse(embeddings, len(self.images), self.rules)
        metrics_of = verification_metrics(fused, self.pairs, self.same, self.fold, self.rules)
        return Report(self.name, metrics_of, self.options(), self._curves(fused))

    def options(self) -> Mapping[str, Any]:
        """What the numbers depend on, for the report."""
        return {**self.rules.options(), "folds": len(np.unique(self.fold)), "pairs": len(self.same)}

    def _curves(self, fused: Floats) -> dict[str, Floats]:
        scores = pair_cosines(fused, self.pairs)
        edges = np.linspace(-1.0, 1.0, HISTOGRAM_BINS + 1)
        curves = {"score_edges": edges}
        for name, rows in (("same", self.same), ("different", ~self.same)):
            curves[f"{name}_count"] = np.histogram(np.clip(scores[rows], -1.0, 1.0), edges)[0].astype(np.float64)
        if one_class(self.same):
            return curves
        curve = metrics.roc(scores, self.same)
        kept = corners(curve)
        return {**curves, "far": curve.far[kept], "tar": curve.tar[kept], "threshold": curve.threshold[kept]}


def fuse(embeddings: Embeddings, images: int, rules: Rules) -> Floats:
    """One raw float64 embedding for each image, (N, D).

    Raises:
        DataError: If there are not as many as images, a value is not finite, or mirrored ones are wanted and missing.
    """
    parts = [embeddings.values]
    if rules.flip:
        if embeddings.flipped is None:
            raise DataError("flip is on, but there are no embeddings of the mirrored images.")
        parts.append(embeddings.flipped)
    for part in parts:
        if part.ndim != 2 or len(part) != images:
            raise DataError(f"{images} images need as many embeddings, got an array of shape {part.shape}.")
        if not np.isfinite(part).all():
            row = int(np.argmin(np.isfinite(part).all(axis=1)))
            raise DataError(f"the embedding of image {row} (from 0) is not finite.")
    values = [part.astype(np.float64) for part in parts]
    if rules.flip and rules.fusion == "normalised_sum":
        values = [unit(value) for value in values]
    return values[0] + values[1] if rules.flip else values[0]


def unit(values: Floats) -> Floats:
    """Rows with norm 1; a row of zeros stays zero."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1.0))


def pair_cosines(fused: Floats, pairs: Integers) -> Floats:
    """Cosine of each pair, (P,)."""
    normed = unit(fused)
    return np.asarray(np.einsum("pd,pd->p", normed[pairs[:, 0]], normed[pairs[:, 1]]))


def pair_distances(fused: Floats, pairs: Integers) -> Floats:
    """Squared Euclidean distance of the normalised embeddings of each pair, (P,)."""
    normed = unit(fused)
    return np.asarray(np.square(normed[pairs[:, 0]] - normed[pairs[:, 1]]).sum(axis=1))


def verification_metrics(
    fused: Floats, pairs: Integers, same: Booleans, fold: Integers, rules: Rules
) -> tuple[Metric, ...]:
    """All numbers of a 1:1 protocol; the headline first.

    Args:
        fused: Raw embeddings, (N, D).
        pairs: Rows of ``fused``, (P, 2).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,).
        rules: How to count.
    """
    counts = (
        Metric("same pairs", float(same.sum()), unit="count"),
        Metric("different pairs", float((~same).sum()), unit="count"),
    )
    if one_class(same):
        note = f"cannot be measured: all {len(same)} pairs are {'same' if same.all() else 'different'} pairs"
        names = ["accuracy", *map(far_name, rules.fars), "AUC", "EER"]
        return (*(Metric(name, None, note=note) for name in names), *counts)
    scores = pair_cosines(fused, pairs)
    curve = metrics.roc(scores, same)
    return (
        *_reference_metrics(fused, pairs, same, fold, rules),
        *_accuracy_metrics(metrics.kfold_accuracy(scores, same, fold)),
        *(far_metric(point, curve.negatives) for point in metrics.tar_at_far(curve, rules.fars)),
        Metric("AUC", metrics.auc(curve)),
        Metric("EER", metrics.eer(curve)),
        *counts,
    )


def _accuracy_metrics(result: metrics.FoldResult) -> tuple[Metric, Metric]:
    spread = result.threshold[np.isfinite(result.threshold)]
    threshold = Metric(
        "threshold",
        float(spread.mean()) if len(spread) else None,
        float(spread.std()) if len(spread) else None,
        unit="score",
        note="cosine; mean over folds",
    )
    folds = len(result.accuracy)
    return Metric(
        "accuracy", result.mean, result.standard_error, note=f"± standard error over {folds} folds"
    ), threshold


def far_name(far: float) -> str:
    """For example ``TAR@FAR=1e-3``."""
    mantissa, exponent = f"{far:.6e}".split("e")
    return f"TAR@FAR={float(mantissa):g}e{int(exponent)}"


def far_metric(point: metrics.OperatingPoint, negatives: int) -> Metric:
    """A true accept rate, or the reason why it cannot be measured."""
    if not point.measurable:
        needed = int(np.ceil(1.0 / point.target - 1e-9))
        note = f"cannot be measured: needs {needed:,} different pairs, there are {negatives:,}"
        return Metric(far_name(point.target), None, note=note)
    return Metric(far_name(point.target), point.tar, note=f"accept cosine >= {point.threshold:.4f}")


def _reference_metrics(
    fused: Floats, pairs: Integers, same: Booleans, fold: Integers, rules: Rules
) -> tuple[Metric, ...]:
    if rules.thresholds == "facexzoo":
        return _facexzoo(pair_cosines(fused, pairs), same)
    if rules.thresholds == "insightface":
        return _insightface(fused, pairs, same, fold)
    if rules.thresholds == "magface":
        result = reference_rules.magface_accuracy(fused[pairs[:, 0]], fused[pairs[:, 1]], same, fold)
        note = "MagFace's rule; ± deviation over folds"
        return (Metric("accuracy (MagFace)", result.mean, result.deviation, kind="reference", note=note),)
    return ()


def _facexzoo(scores: Floats, same: Booleans) -> tuple[Metric, ...]:
    result = reference_rules.facexzoo_accuracy(scores, same)
    note = "FaceX-Zoo's rule; ± standard error"
    empty = reference_rules.FACEXZOO_FOLDS * reference_rules.FACEXZOO_FOLD_PAIRS - len(same)
    if empty:
        note += f"; its fixed 10 x 600 places leave {empty:,} empty, which it counts as pairs"
    return (Metric("accuracy (FaceX-Zoo)", result.mean, result.standard_error, kind="reference", note=note),)


def _insightface(fused: Floats, pairs: Integers, same: Booleans, fold: Integers) -> tuple[Metric, ...]:
    distance = pair_distances(fused, pairs)
    result = reference_rules.grid_accuracy(distance, same, fold)
    note = "InsightFace's rule; ± deviation over folds"
    accuracy = Metric("accuracy (InsightFace)", result.mean, result.deviation, kind="reference", note=note)
    try:
        val = reference_rules.val_at_far(distance, same, fold, VAL_FAR)
    except DataError as error:
        return accuracy, Metric("VAL@FAR=1e-3 (InsightFace)", None, kind="reference", note=str(error))
    reached = f"interpolated threshold; really reaches a FAR of {val.far.mean():.2g}"
    return accuracy, Metric(
        "VAL@FAR=1e-3 (InsightFace)", float(val.val.mean()), float(val.val.std()), kind="reference", note=reached
    )


def one_class(same: Booleans) -> bool:
    """Whether all pairs are same pairs, or all are different pairs."""
    return bool(same.all() or not same.any())


def corners(curve: metrics.Roc) -> Integers:
    """Rows of a ROC that its drawing needs: where it turns, at most about a thousand, dense where FAR is small."""
    turns = np.ones(len(curve.far), bool)
    inner = slice(1, -1)
    turns[inner] = ~(
        ((curve.far[1:-1] == curve.far[:-2]) & (curve.far[2:] == curve.far[1:-1]))
        | ((curve.tar[1:-1] == curve.tar[:-2]) & (curve.tar[2:] == curve.tar[1:-1]))
    )
    rows = np.flatnonzero(turns)
    if len(rows) <= MAX_CURVE_POINTS:
        return rows
    places = np.unique(np.geomspace(1, len(rows), MAX_CURVE_POINTS).astype(np.int64)) - 1
    return rows[places]
