"""``alignment.json``: how the images of a folder or archive were aligned, written beside them, carried into reports."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import Field, ValidationError

from facelab.config import Strict
from facelab.data.alignment.alignment import TemplateForm, template
from facelab.data.base import UNKNOWN_ALIGNMENT
from facelab.data.formats.files import FolderFiles, ImageFiles
from facelab.errors import DataError
from facelab.outside.file import opened
from facelab.outside.json import parse_json

FILE = "alignment.json"
SHOWN = 12  # hex digits of a hash in a report


class AlignmentRecord(Strict):
    """What ``alignment.json`` says.

    Attributes:
        template: Name of the places that the landmarks were brought to.
        form: Form of the template; see `facelab.data.alignment.alignment.template`.
        size: Side of the aligned images, in pixels.
        template_hash: SHA-256 (hex) of the five places as text with four decimals.
        landmarks_hash: SHA-256 (hex) of the landmark file.
    """

    template: str = "ArcFace"
    form: TemplateForm
    size: int = Field(ge=1)
    template_hash: str = Field(pattern="^[0-9a-f]{64}$")
    landmarks_hash: str = Field(pattern="^[0-9a-f]{64}$")

    @classmethod
    def of(cls, size: int, form: TemplateForm, landmarks: Path) -> "AlignmentRecord":
        """The record of an alignment that is about to be made.

        Raises:
            DataError: If the landmark file cannot be read.
        """
        places = ";".join(f"{x:.4f},{y:.4f}" for x, y in template(size, form))
        try:
            with opened(landmarks) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{landmarks}: cannot be read ({error.strerror}).") from None
        return cls(
            form=form, size=size, template_hash=hashlib.sha256(places.encode()).hexdigest(), landmarks_hash=digest
        )

    def describe(self) -> str:
        """One line for reports, for example ``ArcFace scaled 112, template 5d0c3c…, landmarks 91fe02…``."""
        return (
            f"{self.template} {self.form} {self.size}, template {self.template_hash[:SHOWN]}, "
            f"landmarks {self.landmarks_hash[:SHOWN]}"
        )

    def refuse_other(self, folder: Path) -> None:
        """Refuse a folder whose images were aligned otherwise: one record could not describe both.

        Raises:
            DataError: If it has another record.
        """
        found = read_alignment(FolderFiles(folder))
        if found not in (UNKNOWN_ALIGNMENT, self.describe()):
            raise DataError(
                f"{folder / FILE}: the images there were aligned otherwise ({found}); "
                "write to another folder, or replace them with --overwrite."
            )

    def write(self, folder: Path) -> None:
        """Write the record beside the aligned images, whole or not at all.

        Raises:
            DataError: If it cannot be written.
        """
        temporary = folder / f".{FILE}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            # A rename replaces the old record in one step: readers see the old one or the new one.
            temporary.replace(folder / FILE)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise DataError(f"{folder / FILE}: cannot be written ({error.strerror}).") from None


def read_alignment(files: ImageFiles) -> str:
    """The line that `AlignmentRecord.describe` gives of the record at the root of some files; ``unknown`` without one.

    Raises:
        DataError: If there is a record, but it cannot be read.
    """
    if files.size(FILE) is None:
        return UNKNOWN_ALIGNMENT
    try:
        given = parse_json(files.read(FILE), files.where(FILE), "an alignment record")
        return AlignmentRecord.model_validate(given).describe()
    except (ValidationError, DataError):
        raise DataError(
            f"{files.where(FILE)}: does not describe an alignment; such files are written by `facelab data align`. "
            "Remove it if nobody knows how the images were aligned."
        ) from None


def joined_alignment(parts: Iterable[str]) -> str:
    """The alignment of several sets in one: theirs if they agree, else all of them."""
    return " + ".join(dict.fromkeys(parts)) or UNKNOWN_ALIGNMENT
