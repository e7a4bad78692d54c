"""Paint over a rectangle of an image."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import CHOSEN, Draws, Numbers
from facelab.data.transforms.rows import on_device
from facelab.errors import ConfigError

Area = Annotated[float, Field(gt=0.0, le=1.0)]


@TRANSFORMS.register("erase")
class Erase(Transform):
    """Paint over a rectangle that lies inside of the image.

    Args:
        probability: Part of the images that lose a rectangle.
        smallest: Area of the smallest rectangle, as a part of the image.
        largest: Area of the largest.
        elongation: The rectangle is up to so many times as wide as high or as high as wide.
        fill: Grey value to paint with, 0..255.

    Raises:
        ConfigError: If ``smallest`` is above ``largest``.
    """

    stage = Stage.COVER
    changes_quality = False
    moves_keypoints = False
    occludes = True

    def __init__(
        self,
        probability: Probability = 0.2,
        smallest: Area = 0.02,
        largest: Area = 0.2,
        elongation: Annotated[float, Field(ge=1.0)] = 2.0,
        fill: Annotated[int, Field(ge=0, le=255)] = 0,
    ) -> None:
        if smallest > largest:
            raise ConfigError(f"erase smallest is {smallest:g}, above largest, {largest:g}.")
        self.probability = probability
        self.smallest, self.largest = smallest, largest
        self.elongation = elongation
        self.fill = fill

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Paint over a rectangle of some images."""
        fill = torch.full((), self.fill, dtype=torch.uint8, device=image.device)
        return torch.where(self.occluded(image, draw), fill, image)

    def occluded(self, image: Tensor, draw: Draws) -> Tensor:
        """Where these rectangles lie."""
        height, width = image.shape[2:]
        erased = draw(CHOSEN) < self.probability
        area = self.smallest + (self.largest - self.smallest) * draw("area")
        # Even on a logarithmic scale: twice as wide as high is as likely as twice as high as wide.
        shape = self.elongation ** (2.0 * draw("shape") - 1.0)
        columns = on_device(_span(width, np.sqrt(area * shape), draw("x"), erased), image)
        rows = on_device(_span(height, np.sqrt(area / shape), draw("y"), erased), image)
        return rows[:, None, :, None] & columns[:, None, None, :]


def _span(size: int, part: Numbers, place: Numbers, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Marks for each image a stretch of pixels, (B, size), that covers ``part`` of the size and lies inside."""
    length = np.rint(np.minimum(part, 1.0) * size).clip(1, size)[:, None]
    start = np.floor(place[:, None] * (size - length + 1))
    pixel = np.arange(size)
    marked: NDArray[np.bool_] = (pixel >= start) & (pixel < start + length) & wanted[:, None]
    return marked
