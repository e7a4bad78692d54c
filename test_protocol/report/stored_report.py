"""What ``report.json`` may hold: its form, and limits for what may come from anybody."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Base64Bytes, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from facelab.config import Strict, validate
from facelab.data.formats.image_header import check_size
from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.test_protocol.base import Metric, Mistake, Picture
from facelab.test_protocol.report.plain_text import CONTROL

LARGEST = 1e12  # of a metric, so that it can be printed
LONGEST_NAME, LONGEST_TEXT = 300, 5000
MOST_MODELS, MOST_REPORTS = 256, 1024  # of a file
MOST_METRICS, MOST_CURVES, MOST_POINTS, MOST_MISTAKES, MOST_OPTIONS = 2000, 64, 100_000, 1000, 500  # of a report
PARTNERS = {
    "far": ("tar",), "tar": ("far",), "threshold": ("far",), "rank": ("rank_rate",), "rank_rate": ("rank",),
    "reject": ("fnmr",), "fnmr": ("reject",), "same_count": ("score_edges", "different_count"),
    "different_count": ("score_edges", "same_count"), "score_edges": ("same_count", "different_count"),
}  # fmt: skip
"""Curves that say nothing without others; all but the edges have the length of theirs."""
RATES = ("far", "tar", "rank_rate", "reject", "fnmr")
ASCENDING = ("far", "rank", "reject", "score_edges")

Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]


class _Known(BaseModel):
    """Options that tables, sentences and links are made of; any other may be there too."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Bootstrap(_Known):
    draws: Count
    level: float = Field(gt=0, lt=1)
    by: Name


class _FailedImages(_Known):
    count: Count
    first: list[Text] = Field(max_length=100)


class _KnownOptions(_Known):
    precision: Name = ""
    device: Name = ""
    input: Name = ""
    on_corrupt: Name = ""
    resize: bool = False
    flip: bool = False
    images: Count = 0
    excluded_people: Count = 0
    excluded_pairs: Count = 0
    parameters: Annotated[float, Field(ge=0, le=1e18)] = 0
    macs: Annotated[float, Field(ge=0, le=1e24)] = 0
    bootstrap: _Bootstrap | None = None
    failed_images: _FailedImages | None = None
    files: dict[Name, Text] = Field(default={}, max_length=20)

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if "failed_images" in self.model_fields_set and "images" not in self.model_fields_set:
            raise ValueError("'images' must say of how many images some failed")
        if ("excluded_people" in self.model_fields_set) != ("excluded_pairs" in self.model_fields_set):
            raise ValueError("'excluded_people' and 'excluded_pairs' go together")
        return self


def _checked_options(options: dict[str, Any]) -> dict[str, Any]:
    try:
        validate(_KnownOptions, options, "options", settings=False)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return options


def _with_direction(metric: Any) -> Any:
    """A metric of a report that was written before metrics said which values are better.

    Its makers are known: all rates but these were better the higher they were.
    """
    if not isinstance(metric, dict) or "better" in metric:
        return metric
    name, is_rate = str(metric.get("name")), metric.get("unit", "fraction") == "fraction"
    lower = name.startswith(("EER", "error-versus-reject area")) or name.endswith((" deviation", " range"))
    return {**metric, "better": ("low" if lower else "high") if is_rate else None}


def _checked_metric(metric: Metric) -> Metric:
    numbers = (metric.value, metric.spread, *(metric.interval or ()))
    # Asked this way round, NaN is refused too.
    if any(number is not None and not abs(number) <= LARGEST for number in numbers):
        raise ValueError(f"its numbers must lie between {-LARGEST:g} and {LARGEST:g}")
    if len(metric.name) > LONGEST_NAME or len(metric.note) > LONGEST_TEXT:
        raise ValueError(f"its name or note is longer than {LONGEST_NAME} or {LONGEST_TEXT} letters")
    return metric


StoredMetric = Annotated[Metric, BeforeValidator(_with_direction), AfterValidator(_checked_metric)]
Curve = Annotated[list[float], Field(max_length=MOST_POINTS)]


class StoredPicture(Strict):
    """A `Picture`, its JPEG as base64."""

    name: Text
    jpeg: Base64Bytes
    quality: float | None = None


class StoredMistake(Strict):
    """A `Mistake`."""

    kind: Literal["false match", "false non-match"]
    left: Count
    right: Count
    score: float
    pictures: tuple[StoredPicture, StoredPicture] | None = None

    def restore(self) -> Mistake:
        """The mistake that was stored."""
        pictures = None if self.pictures is None else tuple(Picture(**dict(picture)) for picture in self.pictures)
        return Mistake(**{**dict(self), "pictures": pictures})


class StoredTrials(Strict):
    """Where the trials lie, and their hash."""

    file: str = Field(pattern=r"^trials/[A-Za-z0-9_-][A-Za-z0-9._-]*\.npz$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StoredReport(Strict):
    """A `Report`, its trials by name."""

    model_config = ConfigDict(allow_inf_nan=True)  # the first threshold of a curve is above every score

    protocol: Name
    metrics: tuple[StoredMetric, ...] = Field(min_length=1, max_length=MOST_METRICS)
    options: Annotated[dict[str, Any], Field(max_length=MOST_OPTIONS), AfterValidator(_checked_options)]
    curves: dict[Name, Curve] = Field(max_length=MOST_CURVES)
    trials: StoredTrials | None = None
    mistakes: tuple[StoredMistake, ...] = Field(default=(), max_length=MOST_MISTAKES)


class StoredReports(Strict):
    """The whole file."""

    format: Literal["facelab reports 1"]
    facelab: Name
    models: dict[Name, list[StoredReport]] = Field(max_length=MOST_MODELS)

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if (count := sum(map(len, self.models.values()))) > MOST_REPORTS:
            raise ValueError(f"there are {count:,} reports, more than the {MOST_REPORTS:,} that are read")
        return self


def check_text(tree: Any) -> None:
    """Refuse text that could do anything to a terminal, in keys and values of nested lists and dictionaries.

    Raises:
        ValueError: If there is any.
    """
    for text in _texts(tree):
        if CONTROL.search(text):
            raise ValueError(f"control characters in {text[:40]!a}")


def _texts(tree: Any) -> Iterator[str]:
    todo = [tree]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value


def check_curves(curves: Mapping[str, NDArray[np.float64]], where: str) -> None:
    """Refuse curves that cannot be drawn.

    Raises:
        DataError: If one lacks another that goes with it, they differ in length, or hold impossible values.
    """
    for name, others in PARTNERS.items():
        for other in others if name in curves else ():
            _check_pair(curves, name, other, where)
    for name, values in curves.items():
        if np.isnan(values).any() or (name in RATES and ((values < 0) | (values > 1)).any()):
            allowed = "rates from 0 to 1" if name in RATES else "numbers"
            raise DataError(f"{where}: the curve '{name}' holds other values than {allowed}.")
        if name != "threshold" and np.isinf(values).any():
            raise DataError(f"{where}: the curve '{name}' holds values that are not finite.")
        if name in ASCENDING and (np.diff(values) < 0).any():
            raise DataError(f"{where}: the curve '{name}' does not ascend.")
        if name.endswith("_count") and (values < 0).any():
            raise DataError(f"{where}: the curve '{name}' holds counts below zero.")
        if name == "rank" and (values < 1).any():
            raise DataError(f"{where}: the curve 'rank' holds ranks below 1.")


def _check_pair(curves: Mapping[str, NDArray[np.float64]], name: str, other: str, where: str) -> None:
    if other not in curves:
        raise DataError(f"{where}: the curve '{name}' is there without '{other}'.")
    more = (name == "score_edges") - (other == "score_edges")
    if len(curves[name]) != len(curves[other]) + more:
        if more or "score_edges" in (name, other):
            raise DataError(f"{where}: 'score_edges' must have one value more than 'same_count' and 'different_count'.")
        raise DataError(f"{where}: the curves '{name}' and '{other}' differ in length.")


def check_mistakes(mistakes: Sequence[Mistake], where: str) -> None:
    """Refuse pictures that a browser should not be given, and numbers that are none.

    Raises:
        DataError: If there are any.
    """
    for mistake in mistakes:
        qualities = [picture.quality for picture in mistake.pictures or () if picture.quality is not None]
        if not all(map(math.isfinite, (mistake.score, *qualities))):
            raise DataError(f"{where}: a mistake has a score or a quality that is not finite.")
        for picture in mistake.pictures or ():
            _check_picture(picture, f"{where}: the picture of '{picture.name}'")


def _check_picture(picture: Picture, what: str) -> None:
    if not picture.jpeg:
        return
    if not picture.jpeg.startswith(b"\xff\xd8\xff"):
        raise DataError(f"{what} is not a JPEG.")
    try:
        check_size(picture.jpeg, what)
    except CorruptImage as error:
        raise DataError(str(error)) from None
