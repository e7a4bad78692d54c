"""Faces and what can happen to them."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facelab.data.formats.images import decode_image
from facelab.data.synthetic.render import render_face
from facelab.data.synthetic.source import reduce_resolution

Pixels = NDArray[np.uint8]
REAL_FACES, DRAWN_FACES = 40, 16


def blur(image: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def reduce(image: Pixels, factor: float) -> Pixels:
    return reduce_resolution(image, round(len(image) / factor))


def jpeg(image: Pixels, quality: float) -> Pixels:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1], 1))


def noise(image: Pixels, sigma: float) -> Pixels:
    drawn = np.random.default_rng(int(image.sum())).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + drawn), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def degrade() -> dict[str, Callable[[Pixels, float], Pixels]]:
    """By sigma, factor, JPEG quality and sigma."""
    return {"blur": blur, "reduce": reduce, "jpeg": jpeg, "noise": noise}


@pytest.fixture(scope="session")
def drawn_faces() -> list[Pixels]:
    return [render_face(0, person, 1, 112) for person in range(DRAWN_FACES)]


@pytest.fixture(scope="session")
def real_faces(shared_root: Path) -> list[Pixels]:
    """Faces from all over LFW, 112x112."""
    with tarfile.open(shared_root / "data" / "faces" / "lfw112.tar") as tar:
        members = [member for member in tar.getmembers() if member.name.endswith(".jpg")]
        chosen = [members[int(place)] for place in np.linspace(0, len(members) - 1, REAL_FACES)]
        files = [tar.extractfile(member) for member in chosen]
        return [decode_image(file.read(), "lfw") for file in files if file is not None]
