"""Masks lie where faces have nose and mouth, follow landmarks, and leave the eyes alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.data.alignment.alignment import ARCFACE_112, template
from facelab.data.transforms.augment import Augment
from facelab.data.transforms.base import TRANSFORMS
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.data.transforms.mask import Mask
from facelab.data.transforms.mask_shapes import SHAPES, TEXTURES
from facelab.errors import ConfigError

COUNT = 40
ROWS = np.arange(COUNT)
GREY = 117


def covered(mask: Mask, height: int = 112, width: int = 112, landmarks: np.ndarray | None = None) -> Tensor:  # type: ignore[type-arg]
    """Which pixels of grey pictures change, (COUNT, H, W)."""
    image = torch.full((COUNT, 3, height, width), GREY, dtype=torch.uint8)
    worn = mask.worn(image, Draws(draws_of_batch(0, 0, 0, ROWS), "mask"), ROWS, landmarks)
    return (worn != GREY).any(dim=1)


def at(picture: Tensor, point: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    x, y = np.rint(point).astype(int)
    return picture[:, y, x]


@pytest.mark.parametrize("shape", SHAPES)
def test_nose_and_mouth_are_covered_and_eyes_are_not(shape: str) -> None:
    found = covered(Mask(1.0, (shape,)))  # type: ignore[arg-type]
    left, right, nose, *mouth = ARCFACE_112
    assert at(found, nose + np.array([0.0, 2.0])).float().mean() > 0.9
    for corner in mouth:
        assert at(found, corner).all()
    for eye in (left, right):
        assert not at(found, eye).any()


def test_half_of_a_picture_is_not_covered() -> None:
    part = covered(Mask(1.0)).float().mean(dim=(1, 2))
    assert part.min() > 0.15
    assert part.max() < 0.55


@pytest.mark.parametrize("side", [56, 224])
def test_masks_grow_with_the_picture(side: int) -> None:
    small, large = covered(Mask(1.0, jitter=0.0)), covered(Mask(1.0, jitter=0.0), side, side)
    assert (small.float().mean(dim=(1, 2)) - large.float().mean(dim=(1, 2))).abs().max() < 0.03


def test_masks_follow_landmarks() -> None:
    """Of a face that is turned by 90 degrees, so is the mask; of one that lies elsewhere, it lies there."""
    points = np.tile(template(112), (COUNT, 1, 1))
    plain = covered(Mask(1.0))
    turned = np.stack([111 - points[..., 1], points[..., 0]], axis=2)
    assert (covered(Mask(1.0), landmarks=turned) ^ plain.rot90(-1, (1, 2))).float().mean() < 0.01
    moved = covered(Mask(1.0), landmarks=points - [0.0, 30.0])
    assert (moved[:, :80] ^ plain[:, 30:110]).float().mean() < 0.001


def test_the_upper_half_of_a_face_has_the_upper_half_of_the_mask() -> None:
    assert (covered(Mask(1.0), 60, 112) ^ covered(Mask(1.0))[:, :60]).float().mean() < 0.01


def test_masks_differ() -> None:
    image = torch.full((COUNT, 3, 64, 64), GREY, dtype=torch.uint8)
    worn = TRANSFORMS.build("mask", {"probability": 1.0}).image(image, Draws(draws_of_batch(0, 0, 0, ROWS), "mask"))
    assert len(worn.flatten(1).unique(dim=0)) == COUNT


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_have_one_colour_or_more(texture: str) -> None:
    options = {"probability": 1.0, "shapes": ["bandana"], "textures": [texture], "jitter": 0.0}
    image = torch.full((COUNT, 3, 112, 112), GREY, dtype=torch.uint8)
    worn = TRANSFORMS.build("mask", options).image(image, Draws(draws_of_batch(0, 0, 0, ROWS), "mask")).float()
    # Along the middle, shading alone changes colours slowly.
    steps = worn[:, :, 80:110, 56].diff(dim=2).abs().amax(dim=(1, 2))
    assert (steps <= 2).all() if texture == "plain" else (steps > 2).float().mean() > 0.5


def test_a_dark_picture_has_a_dark_mask() -> None:
    draw = Draws(draws_of_batch(0, 0, 0, ROWS), "mask")
    dark, bright = (
        Mask(1.0).worn(torch.full((COUNT, 3, 112, 112), level, dtype=torch.uint8), draw, ROWS) for level in (20, 120)
    )
    assert (dark[:, :, 95, 56].float() < bright[:, :, 95, 56].float()).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"jitter": 30}, "mask jitter is 30, but must lie in"),
        ({"shapes": ["hockey"]}, "'surgical', 'cloth', 'ffp2', 'cup' or 'bandana'"),
    ],
)
def test_refusals(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Augment({"mask": options}, 0)
