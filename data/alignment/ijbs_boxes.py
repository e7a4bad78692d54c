"""Where the ground truth of IJB-S sees faces: the boxes of ``ijbs_metadata.csv`` by video and image."""

import csv
import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.data.alignment.ijbs_lists import medium_at, read_list_rows, subject_at
from facelab.errors import ConfigError, DataError

LAST_FRAME = 1 << 53  # float64 tells whole numbers apart up to here
COLUMNS = ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT", "FRAME_NUM")
FIELDS = ("x", "y", "width", "height", "frame")


@dataclass
class Boxes:
    """The faces of one video or image.

    Attributes:
        line: Where the metadata names it first.
        subjects: Name of each face's subject, B names.
        numbers: Left, top, width, height (pixels) and frame of each face, 5 B values.
    """

    line: int
    subjects: list[str] = field(default_factory=list)
    numbers: "array[float]" = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        """Number of boxes, B."""
        return len(self.subjects)

    @property
    def table(self) -> NDArray[np.float64]:
        """`numbers` as (B, 5)."""
        return np.array(self.numbers, np.float64).reshape(-1, len(FIELDS))


def read_boxes(path: Path, columns: Sequence[str] = COLUMNS) -> dict[str, Boxes]:
    """All boxes, by file (``videos/4310.mp4`` or ``img/100018.jpg``).

    Args:
        path: The metadata; subject and file are its first two columns.
        columns: Names in its header of the columns of left, top, width, height and frame; case does not count.

    Raises:
        ConfigError: If there are not five columns.
        DataError: If the file is missing, its header lacks a column, or a line is malformed; the message names it.
    """
    if len(columns) != len(FIELDS):
        raise ConfigError(f"columns names {len(columns)} columns, but five are needed: {', '.join(FIELDS)}.")
    rows = read_list_rows(path, file_column=1)
    places = _places(path, columns)
    found: dict[str, Boxes] = {}
    for line, row in rows:
        file = row[1].strip()
        if file not in found:
            medium_at(path, line, file)
            found[file] = Boxes(line)
        # Few subjects have very many boxes: each name is kept once.
        found[file].subjects.append(sys.intern(subject_at(path, line, row[0])))
        found[file].numbers.extend(_numbers(path, line, row, places))
    return found


def _places(path: Path, columns: Sequence[str]) -> list[int]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        header = [name.strip().lower() for name in next(csv.reader(file), [])]
    missing = [name for name in columns if name.lower() not in header]
    if missing:
        raise DataError(
            f"{path}:1: has no column '{missing[0]}', but {', '.join(header)}; "
            f"name those of {', '.join(FIELDS)} with --columns."
        )
    return [header.index(name.lower()) for name in columns]


def _numbers(path: Path, line: int, row: list[str], places: list[int]) -> list[float]:
    try:
        numbers = [float(row[place]) for place in places]
    except (ValueError, IndexError):
        given = ", ".join(row[place] if place < len(row) else "nothing" for place in places)
        raise DataError(f"{path}:{line}: expected five numbers for {', '.join(FIELDS)}, got {given}.") from None
    if not all(map(math.isfinite, numbers)) or not 0 <= numbers[4] < LAST_FRAME or numbers[4] % 1:
        raise DataError(f"{path}:{line}: a box must be finite and a frame a whole number from 0, got {numbers}.")
    return numbers
