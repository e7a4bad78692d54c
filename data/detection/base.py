"""What a detector is: a photo -> boxes, scores and five landmarks of the faces in it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facelab.citation import Citation
from facelab.data.base import Pixels
from facelab.errors import DataError
from facelab.registry import Registry

Array = NDArray[np.float64]


class Faces(NamedTuple):
    """The n faces of one photo, the surest first. The centre of the first pixel is (0, 0).

    Attributes:
        boxes: (n, 4), left, top, right and bottom edge in pixels; they may reach beyond the photo.
        scores: (n,), 0..1.
        points: (n, 5, 2), left eye, right eye, nose, left and right corner of the mouth as seen in the photo, (x, y).
    """

    boxes: Array
    scores: Array
    points: Array

    @classmethod
    def none(cls) -> "Faces":
        """No face."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))

    def rows(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Faces":
        """Some of the faces, in the order of ``rows``."""
        return Faces(self.boxes[rows], self.scores[rows], self.points[rows])

    @property
    def sides(self) -> Array:
        """Longer side of each box, (n,), in pixels."""
        return np.asarray((self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1, initial=0.0))

    def resized(self, factor: tuple[float, float]) -> "Faces":
        """The faces in the photo that is so many times as wide and as high."""
        return Faces(
            move_centres(self.boxes.reshape(-1, 2, 2), factor).reshape(-1, 4),
            self.scores,
            move_centres(self.points, factor),
        )


def move_centres(places: Array, factor: tuple[float, float]) -> Array:
    """Where places (..., 2) lie once the photo is resized: pixels have an area, and their centres whole numbers."""
    return np.asarray((places + 0.5) * factor - 0.5)


@dataclass(frozen=True)
class ModelFile:
    """A file of weights that a detector uses, for the record of an alignment.

    Attributes:
        name: Name of the file.
        sha256: Hash of its content (hex).
        source: The package that carries it with its version, or ``given``.
    """

    name: str
    sha256: str
    source: str


class Detector(ABC):
    """Finds faces. Options are constructor arguments; `detect` may be called from several threads.

    Attributes:
        models: The files whose weights it uses.
    """

    citation: ClassVar[Citation | None] = None
    models: tuple[ModelFile, ...] = ()

    @abstractmethod
    def find(self, image: Pixels) -> Faces:
        """The faces of a checked photo, of whatever size."""

    def detect(self, image: Pixels) -> Faces:
        """Boxes, scores and landmarks of all faces of a photo, the surest first.

        Args:
            image: RGB, uint8, (H, W, 3).

        Raises:
            DataError: If the photo is something else.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise DataError(f"a photo must be RGB, uint8, (H, W, 3), got {image.dtype} {image.shape}.")
        found = self.find(image)
        return found.rows(np.argsort(-found.scores, kind="stable"))


DETECTORS: Registry[Detector] = Registry("detector", "facelab.data.detection")
