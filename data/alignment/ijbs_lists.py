"""The CSV lists of IJB-S, and how its files and face crops are called."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from facelab.errors import DataError
from facelab.outside.file import opened_text

PREFIXES = ("ijbs_", "cs6_")  # IJB-S's own, and the one that AdaFace's copy has
METADATA = "metadata.csv"
VIDEO_FOLDER, IMAGE_FOLDER = "videos", "img"
LIST_FOLDERS = ("", "protocols", "protocol")
_FILE = re.compile(r"(videos|img)/([^/\\\x00]+)\.\w+")
_VIDEO_CROP = re.compile(r"videos_(.+)_\d+")


def find_lists(root: Path) -> tuple[Path, str]:
    """Folder of the lists and their prefix, for example (``IJBS/protocols``, ``ijbs_``).

    Args:
        root: The folder itself, or one with a folder ``protocols``.

    Raises:
        DataError: If there is no ``ijbs_metadata.csv`` or ``cs6_metadata.csv``.
    """
    for folder in (root / name for name in LIST_FOLDERS):
        for prefix in PREFIXES:
            if (folder / f"{prefix}{METADATA}").is_file():
                return folder, prefix
    names = " or ".join(f"{prefix}{METADATA}" for prefix in PREFIXES)
    raise DataError(f"{root}: there is no {names}, neither in it nor in a folder 'protocols' below it.")


def read_list_rows(path: Path, file_column: int) -> Iterator[tuple[int, list[str]]]:
    """The lines of a list behind its header, with their numbers in the file; blank lines are passed over.

    Args:
        path: A CSV file.
        file_column: Where the name of the image or video stands; lines have at least one column more.

    Raises:
        DataError: If the file is missing, is not text, has no header or no line behind it, or a line is too short.
    """
    count = 0
    try:
        with opened_text(path, newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if len(header) > file_column and _FILE.fullmatch(header[file_column].strip()):
                raise DataError(f"{path}:1: the first line must be a header, but names '{header[file_column]}'.")
            for row in rows:
                if not row:
                    continue
                if len(row) <= file_column:
                    needed = file_column + 1
                    raise DataError(f"{path}:{rows.line_num}: expected at least {needed} columns, got {len(row)}.")
                count += 1
                yield rows.line_num, row
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file ({error}).") from None
    if not count:
        raise DataError(f"{path}: the list is empty.")


def subject_at(path: Path, line: int, text: str) -> str:
    """The subject of a line.

    Raises:
        DataError: If it is empty or could not be the name of a folder.
    """
    subject = text.strip()
    if not subject or "/" in subject or subject.startswith("."):
        raise DataError(f"{path}:{line}: '{text}' is not a subject.")
    return subject


def medium_at(path: Path, line: int, text: str) -> str:
    """The medium of a line: its file without the ending, ``videos/4310`` or ``img/100018``.

    Raises:
        DataError: If the file is neither ``videos/<name>.mp4`` nor ``img/<name>.jpg``.
    """
    match = _FILE.fullmatch(text.strip())
    if match is None:
        raise DataError(f"{path}:{line}: expected 'videos/<name>.mp4' or 'img/<name>.jpg', got '{text}'.")
    return f"{match[1]}/{match[2]}"


def crop_stem(medium: str, frame: int) -> str:
    """Name of a face crop in its subject's folder, without ending: ``videos_4310_1184`` or ``img_100018``."""
    kind, name = medium.split("/")
    return f"videos_{name}_{frame}" if kind == "videos" else f"img_{name}"


def medium_of_crop(stem: str) -> str | None:
    """The medium that a crop was cut from, or None if it is not called like a crop: the inverse of `crop_stem`."""
    video = _VIDEO_CROP.fullmatch(stem)
    if video:
        return f"videos/{video[1]}"
    return f"img/{stem.removeprefix('img_')}" if stem.startswith("img_") and stem != "img_" else None
