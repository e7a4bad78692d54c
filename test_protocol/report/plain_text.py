"""Text from file names and from reports of others, made fit for terminals, files and pages."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from facelab.test_protocol.base import Metric, Mistake, Picture, Report

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys, what turns text round, and bytes of file names that are no text and cannot be written."""


def plain(value: Any) -> Any:
    r"""The same text, list or record with every character of `CONTROL` as an escape such as ``\x1b``."""
    if isinstance(value, str):
        return CONTROL.sub(lambda found: ascii(found[0])[1:-1], value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def plain_report(report: Report) -> Report:
    """The same report in plain text."""
    return replace(
        report,
        protocol=plain(report.protocol),
        metrics=tuple(_metric(metric) for metric in report.metrics),
        options=plain(report.options),
        mistakes=tuple(_mistake(mistake) for mistake in report.mistakes),
    )


def _metric(metric: Metric) -> Metric:
    return replace(metric, name=plain(metric.name), note=plain(metric.note))


def _mistake(mistake: Mistake) -> Mistake:
    if mistake.pictures is None:
        return mistake
    left, right = (_picture(picture) for picture in mistake.pictures)
    return replace(mistake, pictures=(left, right))


def _picture(picture: Picture) -> Picture:
    return replace(picture, name=plain(picture.name))
