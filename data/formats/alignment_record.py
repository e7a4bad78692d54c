"""``alignment.json``: how the images of a folder or archive were aligned, written beside them, carried into reports."""

import hashlib
import posixpath
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from facelab.config import Strict
from facelab.data.alignment.alignment import TemplateForm, template
from facelab.data.base import UNKNOWN_ALIGNMENT
from facelab.data.formats.files import FolderFiles, ImageFiles
from facelab.errors import DataError
from facelab.outside.file import opened
from facelab.outside.json import parse_json

FILE = "alignment.json"
SHOWN = 12  # hex digits of a hash in a report
LONGEST = 1000  # letters of what is said of an alignment


class ModelRecord(Strict):
    """A file of weights.

    Attributes:
        name: Name of the file.
        sha256: Hash of its content (hex).
        source: The package that carries it with its version, or ``given``.
    """

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    source: str


class DetectionRecord(Strict):
    """How faces were found, where no file of landmarks says where they are.

    Attributes:
        detector: Its name.
        options: Its options.
        models: Its files of weights.
        select: Which faces of a photo were taken.
        min_size: Least side of a face, in pixels.
        on_missing: What was done with photos without a face.
        written: Format of the crops.
        opencv: Version of the library that ran the networks.
        facelab: Version of this program.
    """

    detector: str
    options: dict[str, Any]
    models: tuple[ModelRecord, ...]
    select: str
    min_size: float
    on_missing: str
    written: str
    opencv: str
    facelab: str

    def describe(self) -> str:
        """For example ``detector yunet (yunet.onnx 49f0…, onet.onnx d80f…, longest 640 …), largest face …``."""
        return (
            f"{self.describe_detector()}, {self.select} of the faces from {self.min_size:g} pixels, without one "
            f"{self.on_missing}, {self.written}, OpenCV {self.opencv}, facelab {self.facelab}"
        )

    def describe_detector(self) -> str:
        """What says where the landmarks lie."""
        files = [f"{model.name} {model.sha256[:SHOWN]}" for model in self.models]
        options = [f"{key} {value}" for key, value in sorted(self.options.items())]
        return f"detector {self.detector} ({', '.join(files + options)})"


class AlignmentRecord(Strict):
    """What ``alignment.json`` says.

    Attributes:
        template: Name of the places that the landmarks were brought to.
        form: Form of the template; see `facelab.data.alignment.alignment.template`.
        size: Side of the aligned images, in pixels.
        template_hash: SHA-256 (hex) of the five places as text with four decimals.
        landmarks_hash: SHA-256 (hex) of the landmark file; None where a detector found them.
        detection: How it did.
    """

    template: str = "ArcFace"
    form: TemplateForm
    size: int = Field(ge=1)
    template_hash: str = Field(pattern="^[0-9a-f]{64}$")
    landmarks_hash: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    detection: DetectionRecord | None = None

    @model_validator(mode="after")
    def _landmarks_come_from_somewhere(self) -> "AlignmentRecord":
        if (self.landmarks_hash is None) == (self.detection is None):
            raise ValueError("either landmarks_hash or detection must be given")
        return self

    @classmethod
    def of(cls, size: int, form: TemplateForm, landmarks: Path) -> "AlignmentRecord":
        """The record of an alignment that is about to be made.

        Raises:
            DataError: If the landmark file cannot be read.
        """
        try:
            with opened(landmarks) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{landmarks}: cannot be read ({error.strerror}).") from None
        return cls(form=form, size=size, template_hash=_template_hash(size, form), landmarks_hash=digest)

    @classmethod
    def by_detector(cls, size: int, form: TemplateForm, detection: DetectionRecord) -> "AlignmentRecord":
        """The record of an alignment whose landmarks a detector finds."""
        return cls(form=form, size=size, template_hash=_template_hash(size, form), detection=detection)

    def describe(self) -> str:
        """One line for reports, for example ``ArcFace scaled 112, template 5d0c3c…, landmarks 91fe02…``."""
        landmarks = f"landmarks {(self.landmarks_hash or '')[:SHOWN]}"
        return self._on_template(landmarks if self.detection is None else self.detection.describe())

    def is_like(self, described: str) -> bool:
        """Whether `describe` said of other faces that they lie at these places, by the same detector if there is one.

        Which of several faces were taken, and how the crops were written, may differ.
        """
        if self.detection is None:
            return described == self.describe()
        return described.startswith(self._on_template(self.detection.describe_detector()) + ",")

    def _on_template(self, landmarks: str) -> str:
        return f"{self.template} {self.form} {self.size}, template {self.template_hash[:SHOWN]}, {landmarks}"

    def refuse_other(self, folder: Path) -> None:
        """Refuse a folder whose images were aligned otherwise: one record could not describe both.

        Raises:
            DataError: If it has another record.
        """
        found = read_alignment(FolderFiles(folder))
        if found not in (UNKNOWN_ALIGNMENT, self.describe(), self._until_the_first_without_a_face().describe()):
            raise DataError(
                f"{folder / FILE}: the images there were aligned otherwise ({found}); "
                "write to another folder, or replace them with --overwrite."
            )

    def _until_the_first_without_a_face(self) -> "AlignmentRecord":
        """The record of a folder that stopped there, and so is the same whatever becomes of such photos."""
        if self.detection is None:
            return self
        return self.model_copy(update={"detection": self.detection.model_copy(update={"on_missing": "error"})})

    def write(self, folder: Path) -> None:
        """Write the record beside the aligned images, whole or not at all.

        Raises:
            DataError: If it cannot be written.
        """
        temporary = folder / f".{FILE}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
            # A rename replaces the old record in one step: readers see the old one or the new one.
            temporary.replace(folder / FILE)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise DataError(f"{folder / FILE}: cannot be written ({error.strerror}).") from None


def _template_hash(size: int, form: TemplateForm) -> str:
    places = ";".join(f"{x:.4f},{y:.4f}" for x, y in template(size, form))
    return hashlib.sha256(places.encode()).hexdigest()


def read_alignment(files: ImageFiles, folder: str = "") -> str:
    """The line that `AlignmentRecord.describe` gives of the record of some images; ``unknown`` without one.

    Args:
        files: The images' root. Archives mostly have one folder around all images, in which the record lies then.
        folder: One that holds all of the images; the nearest record there or above it, up to the root, is theirs.

    Raises:
        DataError: If there is a record, but it cannot be read.
    """
    while files.size(file := posixpath.join(folder, FILE)) is None:
        if not folder:
            return UNKNOWN_ALIGNMENT
        folder = posixpath.dirname(folder)
    try:
        given = parse_json(files.read(file), files.where(file), "an alignment record")
        described = AlignmentRecord.model_validate(given).describe()
    except (ValidationError, DataError):
        described = ""
    if not described.isprintable() or not 0 < len(described) <= LONGEST:  # it becomes a line of reports and cards
        raise DataError(
            f"{files.where(file)}: does not describe an alignment; such files are written by `facelab data align`. "
            "Remove it if nobody knows how the images were aligned."
        )
    return described


def common_folder(names: Collection[str]) -> str:
    """The lowest folder that holds all files of these names; '' is the root."""
    # Whatever lies between the first and the last name begins as both do.
    return posixpath.commonpath(map(posixpath.dirname, (min(names), max(names)))) if names else ""


def joined_alignment(parts: Iterable[str]) -> str:
    """The alignment of several sets in one: theirs if they agree, else all of them."""
    return " + ".join(dict.fromkeys(parts)) or UNKNOWN_ALIGNMENT
