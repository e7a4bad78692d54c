"""Landmarks of aligned crops, found again by a detector."""

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Pixels
from facelab.data.detection.base import Detector

BORDER = 4
"""A crop gets a black border of one part in so many: detectors expect something around a face. YuNet finds all faces of
LFW's crops, and without a border nearly as good landmarks."""


class CropPoints:
    """Five landmarks of the face nearest to the middle of each crop.

    Args:
        detector: Finds faces.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def __call__(self, images: Pixels) -> NDArray[np.float64]:
        """Landmarks in pixels, (B, H, W, 3) -> (B, 5, 2); NaN where no face is found."""
        return np.stack([self._of(image) for image in images])

    def _of(self, image: Pixels) -> NDArray[np.float64]:
        height, width = image.shape[:2]
        border = max(height, width) // BORDER
        found = self.detector.detect(
            np.asarray(cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT), np.uint8)
        )
        if not len(found.scores):
            return np.full((5, 2), np.nan)
        middle = found.boxes.reshape(-1, 2, 2).mean(axis=1) - border
        nearest = np.linalg.norm(middle - (width / 2, height / 2), axis=1).argmin()
        return np.asarray(found.points[nearest] - border)
