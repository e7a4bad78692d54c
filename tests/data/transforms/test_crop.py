"""Crops lie inside of the image and fill it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Change = Callable[..., Tensor]


def test_crop_stays_inside_and_enlarges(every_one: Change) -> None:
    """On a ramp along x and y, a crop is a ramp again: never black, flatter, and somewhere inside."""
    ramp = torch.arange(50, 70, dtype=torch.uint8)
    image = torch.stack([ramp.expand(20, 20), ramp[:, None].expand(20, 20), ramp.expand(20, 20)]).repeat(200, 1, 1, 1)
    found = every_one("crop", image, smallest=0.25).int()
    slope = found[:, 0, 5, -1] - found[:, 0, 5, 0]
    assert found.min() >= 50
    assert found.max() <= 69
    assert 8 <= slope.min() <= 12
    assert slope.max() >= 17
    assert (found[:, 0, 5, -1] - found[:, 0, 5, 0] - (found[:, 1, -1, 5] - found[:, 1, 0, 5])).abs().max() <= 1
    assert found[:, 0, 5, 0].float().std() > 1  # not always the same place


@pytest.mark.parametrize(("height", "width"), [(64, 20), (20, 64)])
def test_crop_of_an_image_that_is_not_square_has_no_black_border(height: int, width: int, every_one: Change) -> None:
    image = torch.full((300, 3, height, width), 90, dtype=torch.uint8)
    found = every_one("crop", image, smallest=0.9)
    assert found.min() == found.max() == 90
