"""Change brightness, contrast and saturation, in an order of chance."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.rows import on_device, put_rows, take_rows

GREY = (19595, 38470, 7471)
"""Pillow's weights of red, green and blue, in parts of 65536."""

Strength = Annotated[float, Field(ge=0.0, le=1.0)]


@TRANSFORMS.register("colour_jitter")
class ColourJitter(Transform):
    """Multiply brightness, contrast and saturation by random factors, in an order of chance.

    These are torchvision's ``ColorJitter`` on Pillow images, with no change of hue, which AdaFace uses with 0.5 for all
    three. Its authors hand it BGR images, so that their grey has the weights of red and blue swapped; ours has not.

    Args:
        probability: Part of the images that are changed.
        brightness: The factor lies between ``1 - brightness`` and ``1 + brightness``, evenly.
        contrast: Likewise; differences from the mean grey are multiplied.
        saturation: Likewise; differences from each pixel's grey.
    """

    stage = Stage.LIGHT
    changes_quality = True
    moves_keypoints = False

    def __init__(
        self,
        probability: Probability = 0.2,
        brightness: Strength = 0.5,
        contrast: Strength = 0.5,
        saturation: Strength = 0.5,
    ) -> None:
        self.probability = probability
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Change the colours of some images."""
        rows = draw.chosen(self.probability)
        strengths = [self.brightness, self.contrast, self.saturation]
        factors = 1.0 + (2.0 * draw("factors", 3)[rows] - 1.0) * strengths
        order = draw("order", 3)[rows].argsort(axis=1)
        return put_rows(image, rows, jitter(take_rows(image, rows), factors, order))


def jitter(image: Tensor, factors: Numbers, order: NDArray[np.int64]) -> Tensor:
    """Images with other colours, as Pillow's enhancements make them, to one grey value.

    Args:
        image: RGB, uint8, (B, 3, H, W).
        factors: Of brightness, contrast and saturation, (B, 3).
        order: Which of the three is done first, second and third, (B, 3).
    """
    values = image.float()
    weights = torch.tensor(GREY, dtype=torch.float32).to(image.device, non_blocking=True)[:, None, None]
    factor = on_device(np.take_along_axis(factors, order, axis=1).astype(np.float32), image)
    change = on_device(order, image)
    for step in range(3):
        which, scale = change[:, step, None, None, None], factor[:, step, None, None, None]
        grey = ((values * weights).sum(dim=1, keepdim=True) / 65536).round_()
        mean = grey.mean(dim=(2, 3), keepdim=True).round_()
        # All three move away from something, or towards it: black, the mean grey, the pixel's own grey.
        origin = torch.where(which == 0, 0.0, torch.where(which == 1, mean, grey))
        # Pillow cuts off what lies behind the point.
        values = (origin + scale * (values - origin)).clamp_(0, 255).floor_()
    return values.to(torch.uint8)
