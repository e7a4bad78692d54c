"""Scores that somebody else made: a table of names and numbers."""

import csv
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from facelab.csv_cells import from_cell
from facelab.errors import ConfigError, DataError
from facelab.iqa.base import SCORERS, Scorer
from facelab.iqa.scored_set import ReadableImages, ScoredSet, ScoringOptions
from facelab.outside.file import opened_text
from facelab.progress import OnProgress
from facelab.quality.card import ScorerCard
from facelab.quality.table import COLUMNS, ScoreTable


@SCORERS.register("Table")
class Table(Scorer):
    """Looks scores up in a file by the names of the images.

    The file is a table of ``facelab iqa score``, which says itself what its scores mean, or a plain .csv with a name
    and a score in each line and perhaps the heading ``name,score``; what those mean has to be said.

    Args:
        path: The file.
        low: Least score there can be; of a plain file only, as what follows.
        high: Greatest score there can be.
        higher_is_better: Direction; a plain file needs it.
        scorer: Registered name of the scorer that made a plain file, for gates that were calibrated on it.

    Raises:
        ConfigError: If a plain file comes without its direction, or another with it.
        DataError: If the file is damaged, or a score is outside of the range.
    """

    def __init__(
        self,
        path: Path,
        low: float | None = None,
        high: float | None = None,
        higher_is_better: bool | None = None,
        scorer: str | None = None,
    ) -> None:
        described = _first_character(path) == "#"
        if described != (higher_is_better is None) or (described and (low, high, scorer) != (None, None, None)):
            told = (
                "says itself what its scores mean; leave low, high, scorer and higher_is_better out."
                if described
                else "is a plain list of scores; say which direction they have with higher_is_better: true or false."
            )
            raise ConfigError(f"Table: '{path}' {told}")
        if described:
            self._table: ScoreTable | None = ScoreTable(path)
            self.card = self._table.scorer
            return
        self._table = None
        self.card = ScorerCard(name=scorer or "Table", low=low, high=high, higher_is_better=higher_is_better is True)
        self._path, self._scores = path, _read_plain(path, self.card)

    def names(self) -> frozenset[str]:
        """Names of the images that have a place in the file."""
        return frozenset(self._scores if self._table is None else self._table.names())

    def score_set(
        self, images: ReadableImages, options: ScoringOptions, progress: OnProgress | None = None
    ) -> ScoredSet:
        """The scores that the file has for the images; no image is read.

        Raises:
            DataError: If it lacks one.
        """
        if self._table is not None:
            return ScoredSet(self._table.of(images).values)
        names = [images.name(row) for row in range(len(images))]
        missing = [name for name in names if name not in self._scores]
        if missing:
            raise DataError(
                f"{self._path}: has no score for {len(missing)} of {len(names)} images, the first is '{missing[0]}'."
            )
        return ScoredSet(np.array([self._scores[name] for name in names], np.float32))


def _first_character(path: Path) -> str:
    try:
        with opened_text(path, errors="surrogateescape") as file:
            return file.readline(1 << 20).removeprefix('"')[:1]  # a spreadsheet puts quotes around it
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None


def _read_plain(path: Path, card: ScorerCard) -> dict[str, float]:
    """Score by name; an empty one is NaN."""
    scores: dict[str, float] = {}
    with opened_text(path, errors="surrogateescape", newline="") as file:
        for number, row in _numbered_rows(path, file):
            if number == 1 and row == COLUMNS:
                continue
            where = f"{path}, line {number}"
            if len(row) != 2:
                raise DataError(f"{where}: expected name and score, got {len(row)} fields.")
            score = _number(row[1], where)
            if not math.isnan(score) and not card.allows(score):
                raise DataError(f"{where}: the score {row[1]} is outside of what was declared ({card.describe()}).")
            name = from_cell(row[0])
            # NaN, an image that could not be scored, differs from itself.
            if scores.setdefault(name, score) != score and not math.isnan(score):
                raise DataError(f"{where}: '{name}' has another score above.")
    return scores


def _numbered_rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from enumerate(csv.reader(file), start=1)
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from None


def _number(text: str, where: str) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise DataError(f"{where}: the score is '{text}', not a number.") from None
