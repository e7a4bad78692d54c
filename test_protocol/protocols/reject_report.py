"""Error versus reject in the report of a verification protocol: how well quality tells which pairs go wrong."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import Embeddings, Metric
from facelab.test_protocol.metrics.error_reject import (
    MAGFACE_TARGETS,
    error_versus_reject,
    magface_error_reject,
    pair_quality,
)
from facelab.test_protocol.metrics.metrics import Floats
from facelab.test_protocol.metrics.pair_scores import Rules, ScoredPairs


@dataclass(frozen=True)
class RejectPart:
    """What error versus reject adds to a report.

    Attributes:
        metrics: The areas; none without quality scores.
        curves: ``reject`` and ``fnmr`` (threshold of all pairs), and ``fnmr_magface`` where that rule is asked for,
            which may be shorter.
    """

    metrics: tuple[Metric, ...] = ()
    curves: dict[str, Floats] | None = None


def reject_part(scored: ScoredPairs, embeddings: Embeddings, rules: Rules) -> RejectPart:
    """Curve and areas at the lowest of the rules' false accept rates that can be measured.

    The quality of a pair is that of its worse image: its score, or with ``reject: norm`` the length of its embedding.

    Raises:
        DataError: If there are more or fewer quality scores than images, or one is not a number.
    """
    quality = _image_quality(scored, embeddings, rules)
    if quality is None:
        return RejectPart()
    negatives = int((~scored.same).sum())
    targets = [far for far in sorted(rules.fars) if negatives * far >= 1.0 - 1e-9]
    if scored.one_class or not targets:
        note = f"cannot be measured: there are {int(scored.same.sum()):,} same and {negatives:,} different pairs"
        return RejectPart((Metric("error-versus-reject area", None, note=note, better="low"),))
    of_pairs = pair_quality(quality, scored.pairs, higher_is_better=True)
    target = targets[0]
    curve = partial(error_versus_reject, scored.cosine, scored.same, of_pairs, target, higher_is_better=True)
    fixed, refit = curve(), curve(refit=True)
    name = f"error-versus-reject area@FMR={target:g}"
    by = "embedding norm" if rules.reject == "norm" else "quality score"
    metrics = (
        Metric(
            name,
            fixed.area,
            note=f"mean FNMR, less is better; threshold of all pairs; by {by}, worse of both",
            better="low",
        ),
        Metric(f"{name} (refitted)", refit.area, note="threshold chosen anew on the remaining pairs", better="low"),
    )
    curves = {"reject": fixed.rate, "fnmr": fixed.fnmr}
    if rules.thresholds == "magface" and target in MAGFACE_TARGETS:
        curves["fnmr_magface"] = magface_error_reject(scored.cosine, scored.same, of_pairs, target).fnmr
    return RejectPart(metrics, curves)


def _image_quality(scored: ScoredPairs, embeddings: Embeddings, rules: Rules) -> Floats | None:
    """Quality of each image, higher is better, (N,); the least for images that could not be read."""
    if rules.reject == "norm":
        return np.asarray(np.linalg.norm(scored.fused, axis=1))
    if embeddings.quality is None:
        return None
    quality = np.array(embeddings.quality, np.float64)
    if quality.shape != (len(embeddings.values),):
        raise DataError(f"{len(embeddings.values)} images need as many quality scores, got {len(quality)}.")
    quality[np.array([row for row, _ in embeddings.failed], np.int64)] = -np.inf
    return quality
