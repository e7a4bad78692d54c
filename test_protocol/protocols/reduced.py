"""Any protocol at lower resolutions: options that all protocols have, beside their own."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field

from facelab.catalogue import Spec, resolve
from facelab.config import Strict, validate
from facelab.data.base import ImageSet
from facelab.data.sources.degradation import Degradation, DegradedImages
from facelab.data.synthetic.source import LowResolution
from facelab.errors import ConfigError, CorruptImage
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Protocol, Report
from facelab.test_protocol.metrics.pair_scores import check_count
from facelab.test_protocol.protocols.joint import JoinedImages


class Reductions(Strict):
    """What is done to the images of a protocol, besides leaving them as they are.

    Attributes:
        resolution: Resolutions in pixels: all images are averaged down to that many pixels a side and enlarged again.
        degradation: What a distant, cheap camera does: blur, reduction, noise and JPEG, drawn for each image.
        degradation_seed: Chooses the random numbers of ``degradation``.
    """

    resolution: int | tuple[int, ...] = ()
    degradation: Degradation | None = None
    degradation_seed: int = Field(default=0, ge=0, lt=2**63)

    def images(self, images: ImageSet) -> dict[str, ImageSet]:
        """The same images in each form that is asked for, by what stands behind the names of metrics.

        Raises:
            ConfigError: If a resolution is out of range, or stands twice.
        """
        sizes = (self.resolution,) if isinstance(self.resolution, int) else self.resolution
        if len(set(sizes)) < len(sizes):
            raise ConfigError(f"resolution is {list(sizes)}, in which one stands twice.")
        if sizes and max(sizes) >= (side := _side_of(images)):
            raise ConfigError(f"resolution is {max(sizes)}, but the images have {side:g} pixels a side.")
        found: dict[str, ImageSet] = {f"@{pixels}px": LowResolution(images, pixels) for pixels in sizes}
        if self.degradation is not None:
            found["@degraded"] = DegradedImages(images, self.degradation, self.degradation_seed)
        return found


def _side_of(images: ImageSet) -> float:
    """Shorter side of the first image in pixels; infinity if it cannot be read."""
    try:
        height, width = images.read(0).shape[:2]
        return float(min(height, width))
    except CorruptImage:
        return math.inf


class Reduced(Protocol):
    """A protocol on its images as they are and at lower resolutions, embedded in one pass.

    The report is that of the images as they are; behind its metrics stand those at each resolution that say which
    values are better, for example ``accuracy@16px``. Scores of pairs at each resolution go with the trials.

    Args:
        protocol: The protocol.
        reductions: What is done to its images.

    Raises:
        ConfigError: If a resolution is out of range.
    """

    images: JoinedImages

    def __init__(self, protocol: Protocol, reductions: Reductions) -> None:
        self.protocol, self.reductions, self.flip = protocol, reductions, protocol.flip
        forms = reductions.images(protocol.images)
        self.suffixes = tuple(forms)
        # Names at lower resolutions say theirs; those of degraded images are the originals', which have other scores.
        prefixes = ["", *("degraded " if suffix == "@degraded" else "" for suffix in forms)]
        self.images = JoinedImages([protocol.images, *forms.values()], prefixes)

    def evaluate(self, embeddings: Embeddings) -> Report:
        """The protocol's report, with the metrics at lower resolutions behind it."""
        check_count(embeddings, len(self.images))
        starts = self.images.starts.tolist()
        rows = [slice(start, stop) for start, stop in pairwise(starts)]
        full, *reduced = (self.protocol.evaluate(embeddings.part(own)) for own in rows)
        lower = list(zip(self.suffixes, reduced, strict=True))
        metrics = [metric for suffix, report in lower for metric in _renamed(report, suffix)]
        scores = {f"score{suffix}": report.trials["score"] for suffix, report in lower if _same_pairs(full, report)}
        options = {**full.options, **self.reductions.model_dump(mode="json", exclude_defaults=True)}
        return replace(full, metrics=(*full.metrics, *metrics), options=options, trials={**full.trials, **scores})


def _renamed(report: Report, suffix: str) -> Iterator[Metric]:
    for metric in report.metrics:
        if metric.better is not None:
            yield replace(metric, name=f"{metric.name}{suffix}")


def _same_pairs(full: Report, reduced: Report) -> bool:
    """Whether both scored the same pairs: images that could not be read may have left others out."""
    before, after = full.trials, reduced.trials
    names = ("same", "left", "right")
    return "score" in after and all(
        name in before and name in after and np.array_equal(before[name], after[name]) for name in names
    )


def open_protocol(spec: Spec, **supplied: Any) -> Protocol:
    """A protocol as a configuration names it; every one takes the options of `Reductions` besides its own.

    Args:
        spec: ``{LFW: {root: …, pairs: …, resolution: [16, 8]}}``.
        supplied: As for `facelab.registry.Registry.build`.

    Raises:
        ConfigError: If the name or an option is wrong.
        DataError: If data are missing.
    """
    name, options = resolve(PROTOCOLS, spec)
    own = PROTOCOLS.parameters(name)
    given = {key: options.pop(key) for key in Reductions.model_fields if key in options and key not in own}
    if not given:
        return PROTOCOLS.build(name, options, **supplied)
    reductions = validate(Reductions, given, f"the options of protocol '{name}'")
    return Reduced(PROTOCOLS.build(name, options, **supplied), reductions)
