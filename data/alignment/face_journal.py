"""``faces.jsonl``: which crops each photo of a folder of aligned faces gave, one line a photo.

It is written while the photos are looked at, so that an interrupted run goes on where it stopped, and says afterwards
where each face lies in its photo.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from facelab.config import Strict
from facelab.data.detection.base import Faces
from facelab.data.formats.text_list import name_below
from facelab.errors import DataError
from facelab.outside.file import read_regular
from facelab.weights.whole_file import write_whole

FILE = "faces.jsonl"
LARGEST = 1 << 32  # bytes: some ten million photos


class FoundFace(Strict):
    """One aligned face.

    Attributes:
        crop: Its file, relative to the folder.
        score: How sure the detector was, 0..1; None where the centre of the photo was cropped.
        box: Left, top, right and bottom edge in the photo, in pixels.
        points: Its five landmarks in the photo.
    """

    crop: str
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] | None = None

    @field_validator("crop")
    @classmethod
    def _lies_in_the_folder(cls, crop: str) -> str:
        # It is removed when its photo is done anew; a folder may come from somebody else.
        try:
            return name_below(crop, FILE)
        except DataError as error:
            raise ValueError(str(error)) from None


class PhotoEntry(Strict):
    """One line: a photo and what became of it.

    Attributes:
        photo: Its name.
        bytes: Size of its file, by which a photo that was replaced is known.
        found: How many faces the detector found.
        faces: Those that were aligned.
        refused: Why there are none.
    """

    photo: str
    bytes: int = Field(ge=0)
    found: int = 0
    faces: tuple[FoundFace, ...] = ()
    refused: str | None = None

    def line(self) -> str:
        """The line with its end."""
        # Escaped: names in archives may be any bytes.
        return json.dumps(self.model_dump(exclude_none=True)) + "\n"


def found_faces(crops: list[str], faces: Faces) -> tuple[FoundFace, ...]:
    """The entries of some faces, rounded to a thousandth of a pixel."""
    if not len(faces.scores):
        return tuple(FoundFace(crop=crop) for crop in crops)
    return tuple(
        FoundFace(crop=crop, score=round(float(score), 4), box=box.round(3).tolist(), points=points.round(3).tolist())
        for crop, box, score, points in zip(crops, *faces, strict=True)
    )


class Journal:
    """The file while a folder is being made.

    Args:
        folder: The folder.
        done: What earlier runs did, by the photos' names.

    Attributes:
        entries: All photos so far.
    """

    def __init__(self, folder: Path, done: Mapping[str, PhotoEntry]) -> None:
        self.entries = dict(done)
        self._path = folder / FILE
        self.finish()  # without what an interruption cut off, and photos that are done again

    @contextmanager
    def open(self) -> Iterator[Callable[[PhotoEntry], None]]:
        """A function that adds a photo, while the block lasts.

        Raises:
            DataError: If the file cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:

                def add(entry: PhotoEntry) -> None:
                    self.entries[entry.photo] = entry
                    file.write(entry.line())
                    file.flush()

                yield add
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror or error}).") from None

    def finish(self) -> None:
        """Write the whole file anew, in the order of the photos' names, however many runs it took."""
        write_whole(self._path, "".join(self.entries[name].line() for name in sorted(self.entries)))


def read_journal(folder: Path) -> dict[str, PhotoEntry]:
    """The photos that a folder has done, by name; a line that an interruption cut off is left out.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    return {entry.photo: entry for entry in _entries(path)}


def _entries(path: Path) -> Iterator[PhotoEntry]:
    try:
        text = read_regular(path, LARGEST).decode()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: cannot be read; remove it, or begin anew with --overwrite.") from None
    whole = text[: text.rfind("\n") + 1]
    for number, line in enumerate(whole.split("\n")[:-1], 1):
        try:
            yield PhotoEntry.model_validate(json.loads(line))
        except (ValueError, ValidationError, RecursionError):
            raise DataError(
                f"{path}:{number}: does not say what became of a photo; begin anew with --overwrite."
            ) from None
