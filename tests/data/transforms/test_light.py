"""Brightness and contrast: affine in the grey levels, about the image's mean, clipped."""

from collections.abc import Callable

import torch
from torch import Tensor

Change = Callable[..., Tensor]


def test_contrast_is_about_the_mean_of_the_image_and_not_of_each_channel(every_one: Change) -> None:
    image = torch.tensor([40, 120, 200], dtype=torch.uint8)[None, :, None, None].expand(50, 3, 8, 10).contiguous()
    found = every_one("light", image, brightness=0.0, contrast=0.5)
    spread = found[:, 2, 0, 0].float() - found[:, 0, 0, 0].float()
    assert (found[:, 1].float() - 120).abs().max() <= 1
    assert spread.min() < 110
    assert spread.max() > 200


def test_light_is_an_affine_change_of_grey_levels(every_one: Change) -> None:
    image = torch.randint(100, 156, (100, 3, 6, 6), dtype=torch.uint8)  # no clipping
    changed = every_one("light", image, brightness=0.1, contrast=0.5)
    before, after = image.float(), changed.float()
    added = after.mean(dim=(1, 2, 3)) - before.mean(dim=(1, 2, 3))
    factor = after.std(dim=(1, 2, 3)) / before.std(dim=(1, 2, 3))
    assert added.abs().max() <= 26
    assert added.std() > 10
    assert factor.min() > 0.48
    assert factor.max() < 1.52
    assert factor.std() > 0.2


def test_light_clips(every_one: Change) -> None:
    image = torch.full((50, 3, 4, 4), 250, dtype=torch.uint8)
    changed = every_one("light", image, brightness=1.0)
    assert changed.max() == 255
    assert changed.min() < 100
