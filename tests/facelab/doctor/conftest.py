"""Drawn faces with errors, and a network that knows who is who."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facelab.data.synthetic.source import SyntheticFaces
from facelab.inputs import InputSpec

Pixels = NDArray[np.uint8]

PEOPLE, PHOTOS, SIDE = 8, 5, 48
STRIP = 6  # rows of pixels at the top that say who it is
CODE = 48


class StripReader(nn.Module):
    """Embeds a face by the strip above it: what a good network would do, without one."""

    input_spec = InputSpec(SIDE, SIDE)

    def forward(self, image: Tensor) -> Tensor:
        strip = image[:, 0, :STRIP].mean(dim=1)
        code = strip.unflatten(1, (CODE, -1)).mean(dim=2)
        rest = nn.functional.avg_pool2d(image[:, :, STRIP:], 6).flatten(1)
        return torch.cat([code, 0.2 * rest], dim=1)


def with_strip(face: Pixels, person: int) -> Pixels:
    """A face with who it is in shades of grey above it."""
    code = np.random.default_rng(1000 + person).permutation(CODE) < CODE // 2
    marked = face.copy()
    marked[:STRIP] = np.repeat(np.where(code, 230, 25), SIDE // CODE)[None, :, None]
    return marked


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[list[Pixels]]:
    """Faces of each person."""
    faces = SyntheticFaces(PEOPLE, PHOTOS, SIDE, cache=tmp_path_factory.mktemp("drawn"))
    return [
        [with_strip(faces.read(PHOTOS * person + photo), person) for photo in range(PHOTOS)] for person in range(PEOPLE)
    ]


@pytest.fixture
def folder(drawn: list[list[Pixels]], tmp_path: Path) -> Path:
    """All of them as ``faces/p0/0.png`` and so on."""
    for person, photos in enumerate(drawn):
        for photo, pixels in enumerate(photos):
            write(tmp_path / "faces" / f"p{person}" / f"{photo}.png", pixels)
    return tmp_path / "faces"


@pytest.fixture
def network() -> nn.Module:
    return StripReader()


def write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])
