"""Files of landmarks: which images have a face, and where its five points lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facelab.data.alignment.alignment import Points, five_points
from facelab.data.formats.text_list import name_below, split_fields, text_lines
from facelab.errors import DataError
from facelab.outside.json import read_json

MAX_BYTES = 1 << 30
POINT_COUNTS = (5, 25, 68, 106)
WITH_SCORE = 2 * 5 + 1
"""Numbers on a line with five points and a detector's score, as in the lists of IJB."""

Entry = tuple[str, str, Points]  # name, where it stands, points


@dataclass(frozen=True)
class Landmarks:
    """Five landmarks for each of N images.

    Attributes:
        names: Path of each image, with ``/``, relative to the folder or archive of the images.
        points: (N, 5, 2), (x, y) in pixels, float64.
    """

    names: tuple[str, ...]
    points: Points


def read_landmarks(path: Path) -> Landmarks:
    """Read a file of landmarks.

    Text: one image a line, ``path x1 y1 x2 y2 …``, separated by blanks or by commas, or a path that may contain blanks
    followed by a tab. JSON (ending ``.json``): ``{path: points}`` or ``[{"path": …, "landmarks": points}]``, points as
    pairs or as one flat list. An image has 5, 25, 68 or 106 points, see `five_points`; a score
    after five points is passed over. Numbers that are not finite are kept: they are refused when the image is aligned.

    Raises:
        DataError: If the file cannot be read, is empty, or an entry is malformed, stands twice or leads out of the
            folder; the message names file and line.
    """
    names: dict[str, str] = {}
    points = []
    for name, where, five in _json_entries(path) if path.suffix.lower() == ".json" else _lines(path):
        inside = name_below(name, where)
        if inside in names:
            raise DataError(f"{where}: '{name}' has landmarks already at {names[inside]}; one face for each image.")
        names[inside] = where
        points.append(five)
    if not points:
        raise DataError(f"{path}: holds no landmarks.")
    return Landmarks(tuple(names), np.stack(points))


def _lines(path: Path) -> Iterator[Entry]:
    for number, line in text_lines(path, errors="surrogateescape"):
        where = f"{path}, line {number}"
        # A path may have commas itself, but hardly ten.
        if "\t" not in line and line.count(",") >= 2 * min(POINT_COUNTS):
            name, *numbers = split_fields(line, ",", where)
        else:
            name, *rest = line.split("\t", 1) if "\t" in line else line.split(maxsplit=1)
            numbers = " ".join(rest).split()
        yield name.strip(), where, _five(numbers, where)


def _json_entries(path: Path) -> Iterator[Entry]:
    tree = read_json(path, "landmarks", limit=MAX_BYTES, not_finite=True, pairs=partial(_without_repetition, path))
    if isinstance(tree, dict):
        pairs = [(f"{path}, '{name}'", name, points) for name, points in tree.items()]
    elif isinstance(tree, list) and all(
        isinstance(entry, dict) and {"path", "landmarks"} <= set(entry) for entry in tree
    ):
        pairs = [(f"{path}, entry {i}", str(entry["path"]), entry["landmarks"]) for i, entry in enumerate(tree)]
    else:
        raise DataError(f'{path}: must hold {{path: points}} or [{{"path": path, "landmarks": points}}].')
    for where, name, points in pairs:
        yield name, where, _five(_flat(points, where), where)


def _without_repetition(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path}: '{twice}' stands twice.")
    return tree


def _flat(points: Any, where: str) -> list[Any]:
    if not isinstance(points, list):
        raise DataError(f"{where}: landmarks must be a list, got {type(points).__name__}.")
    return [number for point in points for number in (point if isinstance(point, list) else [point])]


def _five(numbers: list[Any], where: str) -> Points:
    try:
        values = np.array(numbers, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: landmarks must be numbers ({str(error)[:200]}).") from None
    if len(values) == WITH_SCORE:
        values = values[:-1]
    if len(values) not in [2 * count for count in POINT_COUNTS]:
        raise DataError(f"{where}: expected x and y of 5, 25, 68 or 106 points, got {len(values)} numbers.")
    return five_points(values.reshape(-1, 2), where)
