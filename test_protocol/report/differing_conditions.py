"""Whether reports of one protocol can be compared: what differs in how they were measured."""

import re
from collections.abc import Mapping, Sequence
from textwrap import shorten
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
    "backend",
    "flip",
    "fusion",
    "on_corrupt",
    "failed_images",
    "quality",
)
"""Options of a report that say how its embeddings were made; ``preprocessing`` is a hash that covers several others."""

WORDS = {
    "image_set": "the images",
    "input": "the network's input",
    "on_corrupt": "what became of images that cannot be read",
    "failed_images": "images that could not be read",
    "flip": "mirrored images",
    "resize": "resizing",
    "quality": "quality scores",
}
"""What a sentence calls a condition where its name does not say it."""

IN_PREPROCESSING = ("alignment", "input", "resize", "precision", "device", "backend", "flip")
"""What the hash ``preprocessing`` covers, as far as a report says it."""

IF_MISSING = {"quality": "none", "failed_images": "none", "backend": "torch"}
"""Conditions that a report names only where there is something to say, and what it means by their absence."""

HASH = re.compile(r"[0-9a-f]{16,}(\+[0-9a-f]{16,})*")
DIGITS = 8
"""Digits of a hash that a sentence shows."""

LONGEST = 80
"""Letters of a value that a sentence shows, whole words."""


def differing_conditions(reports: Sequence[Report]) -> dict[str, tuple[Any, ...]]:
    """What differs between reports of one protocol in their images, alignment and preprocessing.

    Args:
        reports: Reports of several models, or of several runs of one.

    Returns:
        Name of each condition that differs -> its value in each report, None where a report does not say.
    """
    values = {name: tuple(report.options.get(name) for report in reports) for name in CONDITIONS}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found[1:])}


def conditions_warnings(reports: Mapping[str, Mapping[str, Report]]) -> list[str]:
    """Sentences that warn of differing conditions: one for all protocols in which the same differs.

    What differs is named with what every model has of it: of lists and records only the parts that differ. The hash of
    the preprocessing is left out where something that it covers is named.

    Args:
        reports: Report of each model on each protocol, by their names.
    """
    found: dict[str, list[str]] = {}
    for protocol, of_models in reports.items():
        if said := _differences(of_models):
            found.setdefault(said, []).append(protocol)
    return [
        f"{_joined(protocols)}: not tested alike, so the numbers may not be comparable; what differs: {said}."
        for said, protocols in found.items()
    ]


def _differences(reports: Mapping[str, Report]) -> str:
    """What differs on one protocol, and what each model has of it; empty if nothing."""
    differing = differing_conditions(list(reports.values()))
    if any(name in differing for name in IN_PREPROCESSING):
        differing.pop("preprocessing", None)
    return ", ".join(
        f"{WORDS.get(name, name)} ({_each(list(reports), _texts(name, values, reports))})"
        for name, values in differing.items()
    )


def _texts(name: str, values: Sequence[Any], reports: Mapping[str, Report]) -> list[str]:
    """A condition's value in each report, in words."""
    if name == "image_set":
        counts = [report.options.get("images") for report in reports.values()]
        lists = (_word(value) for value in values)
        return [text if n is None else f"{n:,} of list {text}" for n, text in zip(counts, lists, strict=True)]
    missing = IF_MISSING.get(name, "not said")
    parts = [[missing] if value is None else _parts(value) for value in values]
    shared = set.intersection(*map(set, parts))
    differing = [[part for part in of_one if part not in shared] for of_one in parts]
    # Where one report has nothing of its own, its whole value is shown beside the others'.
    shown = differing if all(differing) else parts
    return [shorten(", ".join(of_one), LONGEST, placeholder=" …") for of_one in shown]


def _parts(value: Any) -> list[str]:
    """The parts of a value that can differ: of a record ``key value``, of a list or a listing its entries."""
    if isinstance(value, Mapping):
        return [f"{key} {_word(item)}" for key, item in value.items()] or ["nothing"]
    if isinstance(value, (list, tuple)):
        return [_word(item) for item in value] or ["nothing"]
    return _word(value).split(", ")


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " and ".join(_parts(value))
    if isinstance(value, (list, tuple)):
        return " and ".join(map(_word, value))
    return HASH.sub(lambda found: found[0][:DIGITS], "none" if value is None else str(value))


def _each(models: Sequence[str], texts: Sequence[str]) -> str:
    """``r50 and r100: A; r200: B``, models with the same value together."""
    having: dict[str, list[str]] = {}
    for model, text in zip(models, texts, strict=True):
        having.setdefault(text, []).append(model)
    return "; ".join(f"{_joined(names)}: {text}" for text, names in having.items())


def _joined(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
