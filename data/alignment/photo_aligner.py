"""One photo -> the aligned crops of its faces: which faces are taken, and what becomes of a photo without any."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from facelab.data.alignment.alignment import TemplateForm, align, template, unlike_faces
from facelab.data.base import Pixels
from facelab.data.detection.base import Detector, Faces
from facelab.data.formats.alignment_record import AlignmentRecord, DetectionRecord, ModelRecord
from facelab.data.formats.images import resize_image
from facelab.errors import DataError, in_range, one_of
from facelab.version import __version__

Select = Literal["largest", "centre", "all"]
OnMissing = Literal["error", "skip", "centre_crop"]
LEAST_FACE = 10.0
"""Pixels. Detectors have seen no smaller faces."""


@dataclass(frozen=True)
class FaceChoice:
    """Which faces of a photo are taken.

    Attributes:
        select: ``largest``, the one nearest to the ``centre`` of the photo, or ``all``, the largest first.
        min_size: Least longer side of a face's box, in pixels of the photo.
        on_missing: What a photo without such a face is: an ``error``, left out (``skip``), or cropped to the square in
            its centre, as if that were a face (``centre_crop``).

    Raises:
        ConfigError: If a value is out of range.
    """

    select: Select = "largest"
    min_size: float = LEAST_FACE
    on_missing: OnMissing = "error"

    def __post_init__(self) -> None:
        one_of("select", self.select, get_args(Select))
        one_of("on_missing", self.on_missing, get_args(OnMissing))
        in_range("min_size", self.min_size, 1, 1 << 14)

    def of(self, faces: Faces, image: Pixels) -> Faces:
        """The chosen faces among those that were found in an image."""
        height, width = image.shape[:2]
        here = (faces.points > -1) & (faces.points < (width, height))
        # What has landmarks as no face can have them is mostly none.
        usable = faces.rows(
            (faces.sides >= self.min_size) & np.any(np.all(here, axis=2), axis=1) & ~unlike_faces(faces.points)
        )
        order = np.argsort(-usable.sides, kind="stable")
        if self.select == "centre":
            centres = (usable.boxes[:, :2] + usable.boxes[:, 2:]) / 2
            order = np.argsort(np.linalg.norm(centres - (width / 2, height / 2), axis=1), kind="stable")
        return usable.rows(order if self.select == "all" else order[:1])


class NoFace(DataError):
    """A photo in which no face was found."""


@dataclass(frozen=True)
class AlignedPhoto:
    """What became of a photo.

    Attributes:
        crops: Aligned faces, RGB, uint8, (n, size, size, 3).
        faces: The same faces as the detector found them in the photo; none where the centre was cropped.
        found: How many faces the detector found.
    """

    crops: tuple[Pixels, ...]
    faces: Faces
    found: int


@dataclass(frozen=True)
class PhotoAligner:
    """Finds faces in photos and aligns them.

    Attributes:
        detector: Finds them.
        choice: Which of them are taken.
        size: Side of the crops, in pixels.
        form: See `facelab.data.alignment.alignment.template`.

    Raises:
        ConfigError: If the size is too small.
    """

    detector: Detector
    choice: FaceChoice = FaceChoice()
    size: int = 112
    form: TemplateForm = "scaled"

    def __post_init__(self) -> None:
        template(self.size, self.form)

    def align(self, image: Pixels, where: str) -> AlignedPhoto:
        """The aligned faces of a photo.

        Args:
            image: RGB, uint8, (H, W, 3).
            where: Names the photo in messages.

        Raises:
            NoFace: If there is no face, and the centre is not to be cropped instead.
        """
        found = self.detector.detect(image)
        faces = self.choice.of(found, image)
        if not len(faces.scores) and self.choice.on_missing == "centre_crop":
            return AlignedPhoto((_centre(image, self.size),), Faces.none(), len(found.scores))
        if not len(faces.scores):
            height, width = image.shape[:2]
            raise NoFace(
                f"{where}: no face of {self.choice.min_size:g} pixels or more was found in the photo of "
                f"{height}x{width} (height x width)."
            )
        crops = tuple(align(image, points, self.size, self.form, where) for points in faces.points)
        return AlignedPhoto(crops, faces, len(found.scores))

    def record(self, detector: str, options: Mapping[str, object], written: str) -> AlignmentRecord:
        """What ``alignment.json`` says of the crops.

        Args:
            detector: The detector's name.
            options: All of its options; files of weights are known by their hashes.
            written: Format of the crops.
        """
        detection = DetectionRecord(
            detector=detector,
            options={key: value for key, value in options.items() if isinstance(value, bool | int | float | str)},
            models=tuple(ModelRecord(**asdict(model)) for model in self.detector.models),
            **asdict(self.choice),
            written=written,
            opencv=str(cv2.__version__),
            facelab=__version__,
        )
        return AlignmentRecord.by_detector(self.size, self.form, detection)


def _centre(image: Pixels, size: int) -> Pixels:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_image(image[top : top + side, left : left + side], size, size)
