"""Verification on seeded synthetic faces: no download, identities that no training set contains."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.alignment_record import joined_alignment
from facelab.data.base import ImageSet, Pixels
from facelab.data.synthetic import synthetic_pairs
from facelab.errors import ConfigError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Protocol, Report
from facelab.test_protocol.pair_scores import DEFAULT_FARS, Fusion, Rules, Thresholds, check_count
from facelab.test_protocol.verification import Verification


class JoinedImages(ImageSet):
    """Several image sets one after the other."""

    def __init__(self, parts: list[ImageSet]) -> None:
        self._parts = parts
        self.alignment = joined_alignment(part.alignment for part in parts)
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        part, row = self._place(index)
        return part.read(row)

    def location(self, index: int) -> str:
        """Where the image lies in its part."""
        part, row = self._place(index)
        return part.location(row)

    def fingerprint(self) -> str:
        """The parts' hashes, joined."""
        return "+".join(part.fingerprint() for part in self._parts)

    def _place(self, index: int) -> tuple[ImageSet, int]:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[place], index - int(self._starts[place])


@PROTOCOLS.register("SyntheticPairs")
class SyntheticPairs(Protocol):
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
    ) -> None:
        for pixels in resolution:
            if not 2 <= pixels < size:
                raise ConfigError(f"resolution {pixels} must be at least 2 and below the image size, {size} pixels.")
        self.rules = Rules(flip, fusion, thresholds, fars)
        self.flip = flip
        self.resolution = resolution
        self._drawn = {"identities": identities, "per_identity": per_identity, "seed": seed, "size": size}
        self._parts: list[Verification] = []
        for reduced in (None, *resolution):
            images, rows, same, fold = synthetic_pairs(
                identities, per_identity, folds, pairs, seed, size, resolution=reduced
            )
            self._parts.append(Verification("SyntheticPairs", images, rows, same, fold, self.rules))
        self.images = JoinedImages([part.images for part in self._parts])

    def evaluate(self, embeddings: Embeddings) -> Report:
        """The report at full resolution, with the accuracies at the reduced ones behind it."""
        check_count(embeddings, len(self.images))
        full, *reduced = self._reports(embeddings)
        extra = [self._at(report, pixels) for report, pixels in zip(reduced, self.resolution, strict=True)]
        options: Mapping[str, Any] = {**full.options, **self._drawn, "resolution": list(self.resolution)}
        return Report(full.protocol, (*full.metrics, *extra), options, full.curves)

    def _reports(self, embeddings: Embeddings) -> list[Report]:
        reports, start = [], 0
        for part in self._parts:
            rows = slice(start, start + len(part.images))
            reports.append(part.evaluate(embeddings.part(rows)))
            start = rows.stop
        return reports

    @staticmethod
    def _at(report: Report, pixels: int) -> Metric:
        accuracy = next(metric for metric in report.metrics if metric.name == "accuracy")
        return Metric(f"accuracy@{pixels}px", accuracy.value, accuracy.spread, note=accuracy.note)
