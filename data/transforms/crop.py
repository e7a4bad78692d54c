"""Cut out a part of an image and enlarge it."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.resample import resample, resample_points, scale_and_shift


@TRANSFORMS.register("crop")
class Crop(Transform):
    """Cut out a part with the image's proportions, anywhere inside, and enlarge it to the full size (bilinear).

    Args:
        probability: Part of the images that are cropped.
        smallest: Area of the smallest crop, as a part of the image; areas up to 1 are equally likely.
    """

    stage = Stage.GEOMETRY
    changes_quality = True  # a crop is enlarged
    moves_keypoints = True

    def __init__(self, probability: Probability = 0.2, smallest: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5) -> None:
        self.probability = probability
        self.smallest = smallest

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Crop some images."""
        return resample(image, *self._move((image.shape[2], image.shape[3]), draw))

    def keypoints(self, keypoints: Tensor, size: tuple[int, int], draw: Draws) -> Tensor:
        """Move the points of the same images."""
        return resample_points(keypoints, size, *self._move(size, draw))

    def _move(self, size: tuple[int, int], draw: Draws) -> tuple[NDArray[np.int64], Numbers]:
        """Which images, and the map of each, (R, 2, 3)."""
        rows = draw.chosen(self.probability)
        area = self.smallest + (1.0 - self.smallest) * draw("area")[rows]
        side = np.sqrt(area)[:, None]
        place = 2.0 * np.stack([draw("x"), draw("y")], axis=1)[rows] - 1.0
        # Samples stay between the centres of the outermost pixels: beyond them they would be mixed with black.
        room = np.maximum(1.0 - side - (1.0 - side) / np.array([size[1], size[0]]), 0.0)
        return rows, scale_and_shift(side.repeat(2, axis=1), place * room)
