"""Move images by whole pixels."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.resample import resample, resample_points, scale_and_shift


@TRANSFORMS.register("shift")
class Shift(Transform):
    """Move the image by whole pixels; what comes in is black.

    Args:
        probability: Part of the images that are moved.
        pixels: Farthest move along each axis, either way.
    """

    stage = Stage.GEOMETRY
    changes_quality = False
    moves_keypoints = True

    def __init__(self, probability: Probability = 0.5, pixels: Annotated[int, Field(ge=1)] = 4) -> None:
        self.probability = probability
        self.pixels = pixels

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Move some images."""
        return resample(image, *self._move((image.shape[2], image.shape[3]), draw))

    def keypoints(self, keypoints: Tensor, size: tuple[int, int], draw: Draws) -> Tensor:
        """Move the points of the same images."""
        return resample_points(keypoints, size, *self._move(size, draw))

    def _move(self, size: tuple[int, int], draw: Draws) -> tuple[NDArray[np.int64], Numbers]:
        """Which images, and the map of each, (R, 2, 3)."""
        rows = draw.chosen(self.probability)
        places = 2 * self.pixels + 1
        pixels = np.floor(np.stack([draw("x"), draw("y")], axis=1)[rows] * places) - self.pixels
        # The picture spans 2 from border to border. Whole pixels fall on centres, where bilinear weights change
        # nothing.
        return rows, scale_and_shift(np.ones_like(pixels), pixels * 2.0 / [size[1], size[0]])
