"""The whole examination of a set: all that can be said with what is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelab.backbone.base import check_quality
from facelab.data.base import ImageSet, Source
from facelab.data.formats.inspection import class_counts
from facelab.doctor.duplicates import find_duplicates
from facelab.doctor.findings import KINDS, Diagnosis, Finding, Rows
from facelab.doctor.identities import Identities, Scale, find_label_errors, measure_scale
from facelab.doctor.image_hash import distance, near_pairs
from facelab.doctor.intrinsic_quality import LEAST_IMAGES, intrinsic_quality, neighbour_share
from facelab.doctor.neighbours import nearest
from facelab.doctor.overlap import find_overlap
from facelab.doctor.pixel_checks import (
    find_low_quality,
    find_misaligned,
    find_other_sizes,
    find_singles,
    find_swapped_colours,
    find_unreadable,
)
from facelab.doctor.survey import FindPoints, Survey, survey
from facelab.errors import ConfigError
from facelab.iqa.base import PixelScorer
from facelab.progress import OnStage
from facelab.test_protocol.extraction.embed import embed

Floats = NDArray[np.float32]
NEIGHBOURS = 10
CHUNK = 4096
SAME_PICTURE, MODEL_BITS = 0.12, 64
"""How near, beside images of one person, two are that the model finds the same picture, and how near their hashes must
be: it knows pictures that were cut out again with a shift of 2 pixels, a turn of 3 degrees or a scale of 5 %."""


@dataclass(frozen=True)
class ExaminationOptions:
    """With what, and how, a set is examined.

    Attributes:
        scorer: Judges quality.
        find_points: Finds landmarks.
        why_no_points: Where none are looked for, why; a sentence.
        network: Embeds; label errors and overlap are looked for with it alone.
        against: Test sets by name.
        device: Where the network runs and neighbours are searched.
        batch_size: Images in a forward pass.
        workers: Threads that read; 0 for one per core.
        cache: Folder that keeps embeddings.
        most_bits: Bits of 255 in which the hashes of duplicates differ at most.
        seed: Of all random choices.
    """

    scorer: PixelScorer | None = None
    find_points: FindPoints | None = None
    why_no_points: str = "no detector was given."
    network: nn.Module | None = None
    against: Mapping[str, ImageSet] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 64
    workers: int = 0
    cache: Path | None = None
    most_bits: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if self.network is not None:
            check_quality(self.network, given=False)
        if self.against and self.network is None:
            raise ConfigError(
                "people of test sets are found by a model: give one (--model), or leave the test sets (--against) out."
            )


def examine(source: Source, options: ExaminationOptions, on_stage: OnStage = lambda *_: None) -> Diagnosis:
    """Everything that is wrong with a set.

    Args:
        source: The set.
        options: With what.
        on_stage: Called with what is being done, how much is done, and of how much.

    Raises:
        ConfigError: If the network cannot be used as it is.
        DataError: If no image can be read.
    """
    seen = survey(
        source,
        options.scorer,
        options.find_points,
        workers=options.workers,
        seed=options.seed,
        progress=lambda done, total: on_stage("looking at images", done, total),
    )
    pixels = [find_unreadable(seen), find_other_sizes(seen), find_swapped_colours(seen), *find_misaligned(seen)]
    if options.scorer is not None:
        pixels += find_low_quality(seen, options.scorer.card)
    spoilt = np.zeros(len(source), bool)
    for finding in pixels:
        spoilt[finding.suspects] |= KINDS[finding.kind].left_out
    by_model = None if options.network is None else _embedded(source, options.network, spoilt, options, on_stage)
    findings = [*pixels, *_duplicates(source, seen, options, by_model)]
    if by_model is not None:
        findings += by_model.label_errors()
        findings += by_model.overlaps(options, on_stage)
    order = list(KINDS)
    findings.append(find_singles(source))
    return Diagnosis(
        source,
        tuple(sorted(findings, key=lambda finding: order.index(finding.kind))),
        _facts(source, seen, by_model),
        _notes(options, by_model),
        seen.quality,
        None if options.scorer is None else options.scorer.card,
    )


@dataclass(frozen=True)
class _ByModel:
    """What a model makes of the images that can be read.

    Attributes:
        rows: Which they are, ascending, (M,).
        identities: Their embeddings with labels.
        scale: What its cosines mean; None where that cannot be measured.
    """

    rows: Rows
    identities: Identities
    scale: Scale | None

    @property
    def tells(self) -> bool:
        """Whether anything can be said of labels."""
        return self.scale is not None and self.scale.is_telling

    def label_errors(self) -> list[Finding]:
        """Wrong labels, several people, two labels, outliers."""
        if self.scale is None or not self.tells:
            return []
        return [self.in_source(finding) for finding in find_label_errors(self.identities, self.scale)]

    def overlaps(self, options: ExaminationOptions, on_stage: OnStage) -> list[Finding]:
        """People of test sets."""
        if self.scale is None or not self.tells or options.network is None:
            return []
        found = []
        for name, images in options.against.items():
            vectors, rows = _vectors(images, options.network, options, f"embedding {name}", on_stage)
            overlap = find_overlap(self.identities, self.scale, (name, images), vectors, rows, options.device)
            found.append(self.in_source(overlap))
        return found

    def in_source(self, finding: Finding) -> Finding:
        """A finding among these images as one of the whole set."""
        beside = finding.beside if finding.beside_in is not None else self.rows[finding.beside]
        return Finding(
            finding.kind, self.rows[finding.rows], beside, finding.score, self.rows[finding.suspects],
            finding.reasons, finding.beside_in, finding.note,
        )  # fmt: skip


def _embedded(
    source: Source, network: nn.Module, spoilt: NDArray[np.bool_], options: ExaminationOptions, on_stage: OnStage
) -> _ByModel:
    """What a model makes of a set; images that are ``spoilt``, (N,), are no witnesses of their labels."""
    vectors, rows = _vectors(source, network, options, "embedding", on_stage)
    _, labels = np.unique(source.labels[rows], return_inverse=True)
    near = nearest(vectors, None, NEIGHBOURS, options.device, lambda done, total: on_stage("comparing", done, total))
    identities = Identities(vectors, labels, near, ~spoilt[rows])
    return _ByModel(rows, identities, measure_scale(identities, options.seed))


def _vectors(
    images: ImageSet, network: nn.Module, options: ExaminationOptions, stage: str, on_stage: OnStage
) -> tuple[Floats, Rows]:
    """Embeddings of unit length of the images that can be read, and which those are."""
    embedded = embed(
        network,
        images,
        device=options.device,
        batch_size=options.batch_size,
        resize=True,
        any_photo=True,
        workers=options.workers,
        cache=options.cache,
        on_corrupt="skip",
        progress=lambda done, total: on_stage(stage, done, total),
    )
    vectors = embedded.values
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    if embedded.skipped is None:
        return vectors, np.arange(len(vectors))
    rows = np.flatnonzero(~embedded.skipped)
    return vectors[rows], rows


def _duplicates(source: Source, seen: Survey, options: ExaminationOptions, by_model: _ByModel | None) -> list[Finding]:
    readable = np.flatnonzero(seen.readable)
    left, right, _ = near_pairs(seen.hash[readable], options.most_bits, options.seed)
    pairs = readable[left], readable[right]
    worth = np.zeros(len(source), np.float32) if seen.quality is None else np.nan_to_num(seen.quality, nan=-np.inf)
    if options.scorer is not None and not options.scorer.card.higher_is_better:
        worth = -worth
    if by_model is None or not by_model.tells or by_model.scale is None:
        return find_duplicates(seen.hash, source.labels, pairs, worth)
    near, scale = by_model.identities.neighbours, by_model.scale
    place, other = np.nonzero(1 - near.cosine <= SAME_PICTURE * (1 - scale.own))
    left, right = by_model.rows[place], by_model.rows[near.rows[place, other]]
    alike = distance(seen.hash[left], seen.hash[right]) <= MODEL_BITS
    pairs = np.concatenate([pairs[0], left[alike]]), np.concatenate([pairs[1], right[alike]])
    support = np.full(len(source), np.nan, np.float32)
    support[by_model.rows] = by_model.identities.others_cosine()
    return find_duplicates(seen.hash, source.labels, pairs, worth, support, scale.at(0.5), 0.5 * scale.gap)


def _facts(source: Source, seen: Survey, by_model: _ByModel | None) -> dict[str, str]:
    counts = class_counts(source)
    facts = {
        "images": f"{len(source):,}",
        "labels": f"{source.num_classes:,}, of {counts.smallest:,} to {counts.largest:,} images",
        "source": type(source).__name__,
        "alignment": source.alignment,
        "fingerprint": source.fingerprint(),
        "median warmth": f"{np.median(seen.warmth[seen.readable]):.3f} (below 0, red and blue are swapped)",
    }
    if by_model is None or by_model.identities.neighbours.rows.shape[1] == 0:
        return facts
    identities, scale = by_model.identities, by_model.scale
    quality = intrinsic_quality(identities.vectors, identities.labels, identities.neighbours)
    share = neighbour_share(identities.labels, identities.neighbours)
    large = identities.counts[identities.labels] > 1
    facts |= {
        "Intrinsic Quality": f"{quality.value:.3f} = 0.2 x {quality.consistency:.3f} (neighbours of the same label) "
        f"+ 0.8 x {quality.richness:.3f} (richness of the embeddings)",
        "no neighbour of its label": f"{int((share[large] == 0).sum()):,} of {int(large.sum()):,} images that have one",
    }
    if scale is not None:
        facts["cosines of this model"] = (
            f"{scale.own:.3f} of an image to its label, {scale.strangers:.3f} ± {scale.spread:.3f} of two people"
        )
    return facts


def _notes(options: ExaminationOptions, by_model: _ByModel | None) -> tuple[str, ...]:
    notes = []
    if options.find_points is None:
        notes.append(f"Alignment was not checked: {options.why_no_points}")
    if options.scorer is None:
        notes.append("Quality was not scored.")
    if by_model is None:
        notes.append("Labels were not checked, nor overlap with test sets: that takes a model.")
    elif by_model.scale is None:
        notes.append("Labels were not checked: no label has two images, or there is one label alone.")
    elif not by_model.tells:
        notes.append(
            f"Labels were not checked: the model does not tell these people apart (images of one label have cosine "
            f"{by_model.scale.own:.3f}, those of two {by_model.scale.strangers:.3f} ± {by_model.scale.spread:.3f})."
        )
    if by_model is not None and len(by_model.rows) < LEAST_IMAGES:
        notes.append(f"Intrinsic Quality can be compared between sets of {LEAST_IMAGES:,} images and more.")
    return tuple(notes)
