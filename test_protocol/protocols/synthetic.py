"""Verification on seeded synthetic faces: no download, identities that no training set contains."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.synthetic.source import synthetic_pairs
from facelab.errors import ConfigError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Report
from facelab.test_protocol.metrics.pair_scores import DEFAULT_FARS, Fusion, Reject, Rules, Thresholds
from facelab.test_protocol.protocols.joint import JointVerification
from facelab.test_protocol.protocols.verification import Verification


@PROTOCOLS.register("SyntheticPairs")
class SyntheticPairs(JointVerification):
    """Verification on synthetic identities that no training run draws, at full and at reduced resolutions.

    Args:
        identities: People.
        per_identity: Images of each.
        folds: Folds, which share no person.
        pairs: All pairs; half of them same pairs.
        seed: Chooses people, images and pairs.
        size: Height and width of the images, in pixels.
        resolution: Extra resolutions in pixels: all images are reduced to that many pixels and enlarged again, and the
            accuracy is reported as ``accuracy@16px``.
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How they are joined: ``sum`` as they are, or ``normalised_sum``.
        thresholds: ``exact``, or ``facexzoo``, ``insightface`` or ``magface`` to have that evaluator's number first.
        fars: False accept rates to measure the true accept rate at.
        reject: What error versus reject takes for quality: the scores of the images, where there are some, or the
            ``norm`` of the embeddings.

    Raises:
        ConfigError: If a number is out of range.
    """

    citation: ClassVar[Citation | None] = None

    def __init__(
        self,
        identities: int = 200,
        per_identity: int = 5,
        folds: int = 10,
        pairs: int = 2000,
        seed: int = 0,
        size: int = 112,
        resolution: tuple[int, ...] = (),
        flip: bool = False,
        fusion: Fusion = "sum",
        thresholds: Thresholds = "exact",
        fars: tuple[float, ...] = DEFAULT_FARS,
        reject: Reject = "quality",
    ) -> None:
        for pixels in resolution:
            if not 2 <= pixels < size:
                raise ConfigError(f"resolution {pixels} must be at least 2 and below the image size, {size} pixels.")
        rules = Rules(flip, fusion, thresholds, fars, reject)
        self.resolution = resolution
        self._drawn = {"identities": identities, "per_identity": per_identity, "seed": seed, "size": size}
        parts: list[Verification] = []
        for reduced in (None, *resolution):
            images, rows, same, fold = synthetic_pairs(
                identities, per_identity, folds, pairs, seed, size, resolution=reduced
            )
            people = np.repeat(np.arange(identities), per_identity)  # whose numbers were checked with the images
            parts.append(Verification("SyntheticPairs", images, rows, same, fold, rules, people))
        super().__init__("SyntheticPairs", parts)

    def evaluate(self, embeddings: Embeddings) -> Report:
        """The report at full resolution, with the accuracies at the reduced ones behind it."""
        full, *reduced = self.reports(embeddings)
        extra = [self._at(report, pixels) for report, pixels in zip(reduced, self.resolution, strict=True)]
        options: Mapping[str, Any] = {**full.options, **self._drawn, "resolution": list(self.resolution)}
        scores = {
            f"score@{pixels}px": report.trials["score"] for report, pixels in zip(reduced, self.resolution, strict=True)
        }
        return replace(full, metrics=(*full.metrics, *extra), options=options, trials={**full.trials, **scores})

    @staticmethod
    def _at(report: Report, pixels: int) -> Metric:
        accuracy = next(metric for metric in report.metrics if metric.name == "accuracy")
        return replace(accuracy, name=f"accuracy@{pixels}px")
