"""Tables of quality scores: one number for each image of a set, made once, looked up wherever it is needed.

A table is a text file. Its first line is ``#`` and a JSON object that says who scored what; then come the columns
``name,score``, one row for each image in the order of its set. A score is empty where the image could not be scored.
"""

import csv
import hashlib
import math
import os
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from facelab.config import Strict
from facelab.csv_cells import as_cell, from_cell
from facelab.errors import DataError
from facelab.outside.file import opened, opened_text
from facelab.quality.card import ScorerCard

FORMAT = "facelab scores 1"
COLUMNS = ["name", "score"]
MAKE = "facelab iqa score DATA"

FloatArray = NDArray[np.float32]


class NamedImages(Protocol):
    """What a table asks of a set of images; every `facelab.data.base.ImageSet` has it."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """Name of an image that does not depend on where its set lies."""

    def fingerprint(self) -> str:
        """A hash of which images these are."""


def revision_of(images: NamedImages) -> str:
    """A hash of images as they are now (`facelab.data.base.ImageSet.revision`), or their fingerprint without one."""
    tell: Callable[[], str] = getattr(images, "revision", images.fingerprint)
    return tell()


class _Header(Strict):
    format: str
    scorer: ScorerCard
    image_set: str
    revision: str = ""
    images: int = Field(ge=0)


@dataclass(frozen=True)
class QualityScores:
    """Scores of the images of one set, in its order.

    Attributes:
        values: float32, (N,); NaN where an image could not be scored.
        scorer: Who made them.
        table: Hash (hex) of the table that they come from.
    """

    values: FloatArray
    scorer: ScorerCard
    table: str = ""

    def options(self) -> dict[str, Any]:
        """Their origin, for a report."""
        return {"scorer": self.scorer.name, "version": self.scorer.version, "table": self.table}

    def require(self, images: NamedImages, rows: NDArray[np.int64] | None = None) -> None:
        """Refuse scores that do not cover some images.

        Args:
            images: The set that the scores are of.
            rows: Which of its images need a score; all by default.

        Raises:
            DataError: If there are more or fewer scores than images, or one has none; the message names it.
        """
        if len(self.values) != len(images):
            raise DataError(f"there are {len(self.values)} quality scores for {len(images)} images.")
        rows = np.arange(len(images)) if rows is None else rows
        empty = rows[~np.isfinite(self.values[rows])]
        if len(empty):
            raise DataError(
                f"{images.name(int(empty[0]))}: the image has no quality score ({len(empty)} images have none); "
                f"score the set anew: {MAKE}."
            )


class ScoreTable:
    """A table as read from its file; names stay there until they are needed.

    Args:
        path: The file.

    Attributes:
        scorer: Who made the scores.
        image_set: Fingerprint of the set that was scored.
        revision: Hash of the images as they were when they were scored; empty in tables from before.
        values: float32, (N,), in the order of that set; NaN where an image could not be scored.

    Raises:
        DataError: If the file is missing, no table, cut off, or a score is no number or outside of the declared range.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = _read_header(path)
        self.scorer, self.image_set, self.revision = header.scorer, header.image_set, header.revision
        # Four bytes each while the file is read; a list of Python's numbers takes eight times that.
        found = array("f", (self._score(line, row) for line, row in _rows(path)))
        self.values: FloatArray = np.array(found, np.float32)
        self._refuse_other_count(header.images)

    def of(self, images: NamedImages) -> QualityScores:
        """The scores of some images in their order: by row if this is the set that was scored, else by name.

        Raises:
            DataError: If an image is not in the table, or its name stands there with two scores.
        """
        if images.fingerprint() == self.image_set and len(images) == len(self.values):
            return QualityScores(self.values, self.scorer, self.fingerprint())
        rows: dict[str, list[int]] = {}
        for row in range(len(images)):
            rows.setdefault(images.name(row), []).append(row)
        values = np.full(len(images), np.nan, np.float32)
        met: dict[str, float] = {}
        for (line, (name, *_)), score in zip(_rows(self.path), self.values.tolist(), strict=True):
            if name in rows:
                # NaN, an image that could not be scored, differs from itself.
                if met.setdefault(name, score) != score and not math.isnan(score):
                    raise DataError(f"{self.path}, line {line}: '{name}' has another score above.")
                values[rows[name]] = score
        self._refuse_missing([name for name in rows if name not in met], len(rows))
        return QualityScores(values, self.scorer, self.fingerprint())

    def names(self) -> Iterator[str]:
        """The name of each image, in the order of ``values``."""
        return (name for _, (name, _) in _rows(self.path))

    def fingerprint(self) -> str:
        """A hash (hex) of scores, scorer and set."""
        digest = hashlib.sha256(f"{self.scorer.model_dump_json()} {self.image_set}".encode())
        digest.update(self.values.tobytes())
        return digest.hexdigest()[:32]

    def _score(self, line: int, row: list[str]) -> float:
        if len(row) != 2:
            raise DataError(f"{self.path}, line {line}: expected name and score, got {len(row)} fields.")
        name, text = row
        if not text:
            return math.nan
        try:
            score = float(text)
        except ValueError:
            raise DataError(f"{self.path}, line {line}: the score of '{name}' is '{text}', not a number.") from None
        if not self.scorer.allows(score):
            raise DataError(
                f"{self.path}, line {line}: the score of '{name}' is {text}, "
                f"outside of what the table declares ({self.scorer.describe()})."
            )
        return score

    def _refuse_other_count(self, said: int) -> None:
        found = len(self.values)
        if found > said:
            raise DataError(f"{self.path}: has {found} scores, but its first line says {said}; make it anew: {MAKE}.")
        if found < said:
            raise DataError(f"{self.path}: is cut off: it has {found} of {said} scores; make it anew: {MAKE}.")
        # A number that was cut in half may still be one: 0.12 of 0.1234.
        if not _ends_with_newline(self.path):
            raise DataError(
                f"{self.path}: is cut off, or its last line lacks its end; if its score is whole, add a line end, else "
                f"make it anew: {MAKE}."
            )

    def _refuse_missing(self, missing: list[str], count: int) -> None:
        if missing:
            raise DataError(
                f"{self.path}: has no score for {len(missing)} of {count} images, the first is '{missing[0]}'; "
                f"it was made for another set, make one for this: {MAKE}."
            )


def write_scores(path: Path, images: NamedImages, values: FloatArray, scorer: ScorerCard) -> None:
    """Write a table whole or not at all; one that exists is replaced.

    Args:
        path: The file, ``.csv``.
        images: The set that was scored.
        values: Score of each image, (N,); NaN where one could not be scored.
        scorer: Who made them.

    Raises:
        DataError: If there are more or fewer scores than images, one is outside of the declared range, or the file
            cannot be written.
    """
    if values.shape != (len(images),):
        raise DataError(f"{path}: {len(images)} images need as many scores, got an array of shape {values.shape}.")
    single = values.astype(np.float32)
    for row in np.flatnonzero(~np.isnan(single)):
        # By its decimals, as it will be read back: the float32 nearest to an end of the range may itself lie beyond it.
        if not scorer.allows(float(str(single[row]))):
            raise DataError(f"{images.name(int(row))}: the score {values[row]} is not allowed ({scorer.describe()}).")
    header = _Header(
        format=FORMAT,
        scorer=scorer,
        image_set=images.fingerprint(),
        revision=revision_of(images),
        images=len(images),
    )
    if not path.name:
        raise DataError(f"'{path}' is a folder; name a file in it.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(f"# {header.model_dump_json()}\n")
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows((as_cell(images.name(i)), "" if np.isnan(s) else str(s)) for i, s in enumerate(single))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None


def _read_header(path: Path) -> _Header:
    try:
        with opened_text(path, errors="surrogateescape") as file:
            first = file.readline(1 << 20)
    except OSError as error:
        raise DataError(f"{path}: the quality scores cannot be read ({error.strerror}); make them: {MAKE}.") from None
    try:
        if first.startswith('"'):  # a spreadsheet took it for cells
            first = ",".join(next(csv.reader([first.strip()])))
        header = _Header.model_validate_json(first.strip().rstrip(",").removeprefix("#"))
    except (ValidationError, ValueError, csv.Error):
        raise DataError(f"{path}: is not a table of quality scores (its first line describes none).") from None
    if header.format != FORMAT:
        raise DataError(f"{path}: has the format '{header.format}'; this facelab reads '{FORMAT}'.")
    return header


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row below the columns."""
    with opened_text(path, errors="surrogateescape", newline="") as file:
        file.readline()
        table = csv.reader(file)
        try:
            if _first_two(next(table, [])) != COLUMNS:
                raise DataError(f"{path}, line 2: expected the columns {','.join(COLUMNS)}.")
            for row in table:
                yield table.line_num + 1, [from_cell(cell) for cell in _first_two(row)]
        except csv.Error as error:
            raise DataError(f"{path}, line {table.line_num + 1}: is damaged ({error}).") from None


def _first_two(row: list[str]) -> list[str]:
    """Name and score; spreadsheets fill all rows up to the longest."""
    return row if any(row[2:]) else row[:2]


def _ends_with_newline(path: Path) -> bool:
    with opened(path) as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
