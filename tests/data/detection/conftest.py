"""Scenes with drawn faces in known places."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from facelab.data.base import Pixels
from facelab.data.synthetic.source import SyntheticFaces


@pytest.fixture(scope="session")
def drawn() -> list[Pixels]:
    """Drawn faces, RGB, 112x112."""
    faces = SyntheticFaces(identities=10, per_identity=1, size=112, split="test")
    return [faces.read(row) for row in range(len(faces))]


@pytest.fixture(scope="session")
def scene(drawn: list[Pixels]) -> Callable[..., Pixels]:
    """A function of (height, width, (face, left, top, side)...) that pastes faces onto a plain wall."""

    def paste(height: int, width: int, *places: tuple[int, int, int, int]) -> Pixels:
        photo = np.full((height, width, 3), (150, 160, 170), np.uint8)
        for face, left, top, side in places:
            method = cv2.INTER_AREA if side < 112 else cv2.INTER_LINEAR
            photo[top : top + side, left : left + side] = cv2.resize(drawn[face], (side, side), interpolation=method)
        return photo

    return paste
