"""Photos at the scales at which a detector finds faces: its networks have seen faces of some sizes only."""

from abc import abstractmethod

import cv2
import numpy as np

from facelab.data.base import Pixels
from facelab.data.detection.base import Detector, Faces
from facelab.data.detection.boxes import distinct
from facelab.errors import in_range

OTHER_SCALES = (2.0, 0.5, 0.25)
SAME_FACE = 0.4
"""Part of the area of two boxes together from which on they are one face that was found at two scales."""


class AtScales(Detector):
    """Finds faces at one scale, and at others too where that one leaves doubts.

    A photo is reduced until its longer side is ``longest``. Where no face is found, it is looked at twice as large too,
    for small faces, and at a half and a quarter, for faces that fill it.

    Args:
        longest: Longer side in which a photo is looked at first, in pixels; smaller photos are not enlarged.
        min_score: Least score of a face, 0..1.
        thorough: Look at all scales even where faces are found at the first, at six times the cost.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(self, longest: int, min_score: float, thorough: bool) -> None:
        self.thorough = thorough
        self.longest = int(in_range("longest", longest, 32, 4096))
        self.min_score = in_range("min_score", min_score, 0.0, 1.0)

    @abstractmethod
    def find_at(self, image: Pixels) -> Faces:
        """The faces of a photo as large as it is."""

    def find(self, image: Pixels) -> Faces:
        """The faces of a photo, whatever its size."""
        scale = min(1.0, self.longest / max(image.shape[:2]))
        found = self._at(image, scale)
        if len(found.scores) and not self.thorough:
            return found
        looks = [found, *(self._at(image, factor * scale) for factor in OTHER_SCALES)]
        joined = Faces(*(np.concatenate(parts) for parts in zip(*looks, strict=True)))
        return joined.rows(distinct(joined.boxes, joined.scores, SAME_FACE))

    def _at(self, image: Pixels, scale: float) -> Faces:
        height, width = image.shape[:2]
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        small = resized(image, rows, columns)
        return self.find_at(small).resized((width / columns, height / rows))


def padded(image: Pixels, multiple: int) -> Pixels:
    """A photo with black rows below and columns to the right, so that both sides are multiples of a number."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)))


def resized(image: Pixels, rows: int, columns: int) -> Pixels:
    """A photo at another size: area averages where it shrinks, bilinear where it grows."""
    if image.shape[:2] == (rows, columns):
        return image
    method = cv2.INTER_AREA if rows < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=method), np.uint8)
