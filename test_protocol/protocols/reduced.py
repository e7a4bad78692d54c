"""Any protocol at lower resolutions and with parts of the faces covered: options that all protocols have."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from facelab.catalogue import Spec, resolve
from facelab.config import Strict, validate
from facelab.data.alignment.regions import REGIONS, Region
from facelab.data.base import ImageSet
from facelab.data.sources.degradation import Degradation, DegradedImages
from facelab.data.sources.occluded import Fill, OccludedImages, Occluder
from facelab.data.synthetic.source import LowResolution
from facelab.errors import ConfigError, CorruptImage
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Protocol, Report
from facelab.test_protocol.metrics.pair_scores import check_count
from facelab.test_protocol.protocols.joint import JoinedImages


def _regions(given: Any) -> Any:
    """A region's name as the list of one, and ``all`` as all of them."""
    if given == "all":
        return tuple(REGIONS)
    return (given,) if isinstance(given, str) else given


class Occlusions(Strict):
    """Which parts of the faces are covered, and how.

    Attributes:
        regions: Each is a test of its own; ``all`` for the nine that there are.
        fill: ``texture``, ``noise``, or a grey value from 0 to 255; see `facelab.data.sources.occluded.Occluder`.
        seed: Chooses the random numbers of ``fill``.
        side: ``both``: all images are covered; ``probe``: the second image of each pair, or the faces that are searched
            for, as in FROM's test, while the first ones, or the gallery, stay as they are.
    """

    regions: Annotated[tuple[Region, ...], BeforeValidator(_regions), Field(min_length=1)]
    fill: Fill = "texture"
    seed: int = Field(default=0, ge=0, lt=2**63)
    side: Literal["both", "probe"] = "both"

    def images(self, images: ImageSet) -> dict[str, ImageSet]:
        """The same images with each region covered, by what stands behind the names of metrics.

        Raises:
            ConfigError: If a region stands twice.
        """
        if len(set(self.regions)) < len(self.regions):
            raise ConfigError(f"occlude is {list(self.regions)}, in which one stands twice.")
        return {f"@{name}": OccludedImages(images, Occluder(name, self.fill, self.seed)) for name in self.regions}


def _occlusions(given: Any) -> Any:
    """Regions without anything else may stand alone."""
    return given if given is None or isinstance(given, Mapping | Occlusions) else {"regions": given}


class Reductions(Strict):
    """What is done to the images of a protocol, besides leaving them as they are.

    Attributes:
        resolution: Resolutions in pixels: all images are averaged down to that many pixels a side and enlarged again.
        degradation: What a distant, cheap camera does: blur, reduction, noise and JPEG, drawn for each image.
        degradation_seed: Chooses the random numbers of ``degradation``.
        occlude: Parts of the faces that are covered, each in a test of its own: ``all``, ``mouth``, ``[nose, mouth]``,
            or ``{regions: all, fill: noise, seed: 1}``.
    """

    resolution: int | tuple[int, ...] = ()
    degradation: Degradation | None = None
    degradation_seed: int = Field(default=0, ge=0, lt=2**63)
    occlude: Annotated[Occlusions | None, BeforeValidator(_occlusions)] = None

    def images(self, images: ImageSet) -> dict[str, ImageSet]:
        """The same images in each form that is asked for, by what stands behind the names of metrics.

        Raises:
            ConfigError: If a resolution is out of range, or it or a region stands twice.
        """
        sizes = (self.resolution,) if isinstance(self.resolution, int) else self.resolution
        if len(set(sizes)) < len(sizes):
            raise ConfigError(f"resolution is {list(sizes)}, in which one stands twice.")
        if sizes and max(sizes) >= (side := _side_of(images)):
            raise ConfigError(f"resolution is {max(sizes)}, but the images have {side:g} pixels a side.")
        found: dict[str, ImageSet] = {f"@{pixels}px": LowResolution(images, pixels) for pixels in sizes}
        if self.degradation is not None:
            found["@degraded"] = DegradedImages(images, self.degradation, self.degradation_seed)
        return found if self.occlude is None else {**found, **self.occlude.images(images)}


def _side_of(images: ImageSet) -> float:
    """Shorter side of the first image in pixels; infinity if it cannot be read."""
    try:
        height, width = images.read(0).shape[:2]
        return float(min(height, width))
    except CorruptImage:
        return math.inf


class Reduced(Protocol):
    """A protocol on its images as they are, at lower resolutions and with covered regions, embedded in one pass.

    The report is that of the images as they are; behind its metrics stand those of each other form that say which
    values are better, for example ``accuracy@16px`` or ``accuracy@mouth``; several regions have a mean,
    ``accuracy@occluded``. Scores of pairs in each form go with the trials.

    Args:
        protocol: The protocol.
        reductions: What is done to its images.

    Raises:
        ConfigError: If a resolution is out of range, it or a region stands twice, or probes alone are to be covered
            where the protocol does not tell them apart.
    """

    images: JoinedImages

    def __init__(self, protocol: Protocol, reductions: Reductions) -> None:
        self.protocol, self.reductions = protocol, reductions
        self.flip, self.crops = protocol.flip, protocol.crops
        forms = reductions.images(protocol.images)
        self.suffixes = tuple(forms)
        # Names at lower resolutions say theirs; those of other forms are the originals', which have other scores.
        named = (isinstance(images, LowResolution) for images in forms.values())
        prefixes = ["", *("" if own else f"{suffix[1:]} " for suffix, own in zip(forms, named, strict=True))]
        self.images = JoinedImages([protocol.images, *forms.values()], prefixes)
        occlude = reductions.occlude
        probed = occlude.regions if occlude is not None and occlude.side == "probe" else ()
        self._of_probes = {
            suffix: protocol.with_probes_of(JoinedImages([protocol.images, forms[suffix]], ["", f"{suffix[1:]} "]))
            for suffix in (f"@{region}" for region in probed)
        }

    def evaluate(self, embeddings: Embeddings) -> Report:
        """The protocol's report, with the metrics of the other forms behind it."""
        check_count(embeddings, len(self.images))
        own, *rows = (slice(start, stop) for start, stop in pairwise(self.images.starts.tolist()))
        full = self.protocol.evaluate(embeddings.part(own))
        lower = {
            suffix: self._of_probes[suffix].evaluate(embeddings.part(np.r_[own, form]))
            if suffix in self._of_probes
            else self.protocol.evaluate(embeddings.part(form))
            for suffix, form in zip(self.suffixes, rows, strict=True)
        }
        metrics = [metric for suffix, report in lower.items() for metric in _renamed(report, suffix)]
        regions = () if self.reductions.occlude is None else self.reductions.occlude.regions
        if len(regions) > 1:
            metrics += _means([lower[f"@{region}"] for region in regions])
        scores = {f"score{name}": report.trials["score"] for name, report in lower.items() if _same_pairs(full, report)}
        options = {**full.options, **self.reductions.model_dump(mode="json", exclude_defaults=True)}
        return replace(full, metrics=(*full.metrics, *metrics), options=options, trials={**full.trials, **scores})


def _renamed(report: Report, suffix: str) -> Iterator[Metric]:
    for metric in report.metrics:
        if metric.better is not None:
            yield replace(metric, name=f"{metric.name}{suffix}")


def _means(reports: Sequence[Report]) -> Iterator[Metric]:
    """Mean over the covered regions of each metric of which one value is better."""
    values = [{metric.name: metric.value for metric in report.metrics} for report in reports]
    for metric in reports[0].metrics:
        if metric.better is not None:
            of_each = [value for own in values if (value := own.get(metric.name)) is not None]
            mean = float(np.mean(of_each)) if len(of_each) == len(reports) else None
            note = "cannot be measured: a region has no value" if mean is None else f"mean of {len(reports)} regions"
            yield replace(metric, name=f"{metric.name}@occluded", value=mean, spread=None, note=note)


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
