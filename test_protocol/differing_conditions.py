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

WORDS = {
    "image_set": "the images",
    "input": "the network's input",
    "on_corrupt": "what became of images that cannot be read",
    "failed_images": "images that could not be read",
    "flip": "mirrored images",
    "quality": "quality scores",
}
"""What a sentence calls a condition where its name does not say it."""

IN_PREPROCESSING = ("alignment", "input", "resize", "precision", "device", "flip")
"""What the hash ``preprocessing`` covers, as far as a report says it."""

LONGEST, HASH = 40, 8
"""Letters of a value, and digits of the hash of a list, that a sentence shows."""


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

    Each is named with what every model has of it. Long values are cut to where they differ, and the hash of the
    preprocessing is left out where something that it covers is named.

    Args:
        reports: Report of each model on one protocol, by the model's name.
    """
    differing = differing_conditions(list(reports.values()))
    if not differing:
        return None
    if any(name in differing for name in IN_PREPROCESSING):
        differing.pop("preprocessing", None)
    protocol = next(iter(reports.values())).protocol
    said = "; ".join(
        f"{WORDS.get(name, name)} ({_each(list(reports), _texts(name, values, reports))})"
        for name, values in differing.items()
    )
    return f"{protocol}: not tested alike, so the numbers may not be comparable; what differs: {said}."


def _texts(name: str, values: Sequence[Any], reports: Mapping[str, Report]) -> list[str]:
    """A condition's value in each report, in words."""
    said = [_word(value) for value in values]
    if name == "image_set":
        counts = [report.options.get("images") for report in reports.values()]
        said = [
            text[:HASH] if n is None else f"{n} of list {text[:HASH]}" for n, text in zip(counts, said, strict=True)
        ]
    return _shortened(said)


def _word(value: Any) -> str:
    if value is None:
        return "not said"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _shortened(texts: Sequence[str]) -> list[str]:
    """Texts cut to `LONGEST` letters, beginning shortly before the first in which they differ."""
    if all(len(text) <= LONGEST for text in texts):
        return list(texts)
    lengths = range(min(map(len, texts)))
    alike = next((at for at in lengths if any(text[at] != texts[0][at] for text in texts)), len(lengths))
    start = 0 if alike < LONGEST // 2 else alike - LONGEST // 4
    return [("…" if start else "") + text[start:][:LONGEST] + ("…" if text[start:][LONGEST:] else "") for text in texts]


def _each(models: Sequence[str], texts: Sequence[str]) -> str:
    """``r50 and r100: A, r200: B``."""
    having: dict[str, list[str]] = {}
    for model, text in zip(models, texts, strict=True):
        having.setdefault(text, []).append(model)
    return ", ".join(f"{' and '.join(names)}: {text}" for text, names in having.items())
