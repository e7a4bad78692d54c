"""Whether reports of one protocol can be compared: what differs in how they were measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from facelab.test_protocol.base import Report

CONDITIONS = (
    "image_set",
    "alignment",
    "preprocessing",
    "input",
    "resize",
    "precision",
    "device",
    "flip",
    "fusion",
    "on_corrupt",
    "failed_images",
    "quality",
)
"""Options of a report that say how its embeddings were made; ``preprocessing`` is a hash that covers several others."""


def differing_conditions(reports: Sequence[Report]) -> dict[str, tuple[Any, ...]]:
    """What differs between reports of one protocol in their images, alignment and preprocessing.

    Args:
        reports: Reports of several models, or of several runs of one.

    Returns:
        Name of each condition that differs -> its value in each report, None where a report does not say.
    """
    values = {name: tuple(report.options.get(name) for report in reports) for name in CONDITIONS}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found[1:])}


def conditions_warning(reports: Mapping[str, Report]) -> str | None:
    """One sentence that warns of differing conditions, or None if there are none.

    Args:
        reports: Report of each model on one protocol, by the model's name.
    """
    differing = differing_conditions(list(reports.values()))
    if not differing:
        return None
    protocol = next(iter(reports.values())).protocol
    said = "; ".join(f"{name} ({_each(reports, values)})" for name, values in differing.items())
    return f"{protocol}: not tested alike, so the numbers may not be comparable; what differs: {said}."


def _each(reports: Mapping[str, Report], values: tuple[Any, ...]) -> str:
    return ", ".join(f"{model}: {'not said' if v is None else v}" for model, v in zip(reports, values, strict=True))
