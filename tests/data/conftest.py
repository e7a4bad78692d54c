"""Small image sets that the tests of sources share."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.uint8]


@pytest.fixture(scope="session")
def picture() -> Callable[..., Array]:
    """A function ``picture(seed, height=12, width=10)`` that gives random RGB pixels."""

    def draw(seed: int, height: int = 12, width: int = 10) -> Array:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return draw


@pytest.fixture(scope="session")
def png() -> Callable[[Array], bytes]:
    """A function that gives RGB pixels as a PNG file, which loses nothing."""
    return lambda pixels: bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())


@pytest.fixture
def faces(tmp_path: Path, picture: Callable[..., Array], png: Callable[[Array], bytes]) -> Path:
    """A folder ``p0``, ``p1``, ``p2`` with 1, 2 and 3 images; image n of person k is ``picture(10 k + n)``."""
    for person in range(3):
        (tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for number in range(person + 1):
            (tmp_path / "faces" / f"p{person}" / f"{number}.png").write_bytes(png(picture(10 * person + number)))
    return tmp_path / "faces"
