"""MegaFace's lists: the devkit's JSON with images and people, and the text files that name noisy images."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facelab.data.formats.text_list import text_lines, with_slashes
from facelab.errors import DataError
from facelab.outside.json import read_json

MAX_BYTES = 1 << 29  # a million paths take 60 MB


@dataclass(frozen=True)
class FeatureList:
    """A list of the devkit.

    Attributes:
        images: Paths below the image root.
        people: Name of the person on each, or empty if the list has no people.
    """

    images: tuple[str, ...]
    people: tuple[str, ...]


def read_feature_list(path: Path) -> FeatureList:
    """A JSON file ``{"path": [...], "id": [...]}``; distractor lists have no ``id``.

    Raises:
        DataError: If the file is missing, has another form, is empty, or names an image more than once.
    """
    content = _json(path)
    images, people = _texts(path, content, "path"), _texts(path, content, "id")
    if not images:
        raise DataError(f"{path}: the list names no image.")
    if people and len(people) != len(images):
        raise DataError(f"{path}: {len(images)} paths and {len(people)} ids do not make a list.")
    image, count = Counter(images).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: names the image '{image}' {count} times.")
    return FeatureList(images, people)


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path, "a list of MegaFace", limit=MAX_BYTES)
    if not isinstance(content, dict):
        raise DataError(f"{path}: a MegaFace list is a JSON object with 'path', and with 'id' where people are known.")
    return content


def _texts(path: Path, content: dict[str, Any], key: str) -> tuple[str, ...]:
    values = content.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: '{key}' is not a list of texts.")
    return tuple(map(with_slashes, values)) if key == "path" else tuple(values)


def read_noises(path: Path) -> frozenset[str]:
    """The names of a noise list: the last tab-separated field of every line that is not blank and no ``#`` comment.

    Raises:
        DataError: If the file is missing, is not text, or names nothing.
    """
    lines = (line for _, line in text_lines(path))
    names = frozenset(line.split("\t")[-1].strip() for line in lines if not line.startswith("#"))
    if not names:
        raise DataError(f"{path}: names no image.")
    return names
