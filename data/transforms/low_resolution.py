"""Show a face as a coarser camera would."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.resize import area_weights, linear_weights
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows
from facelab.errors import ConfigError, in_range

LARGEST = 4096  # pixels a side; more is a mistyped number


@TRANSFORMS.register("low_resolution")
class LowResolution(Transform):
    """Average an image down to a few pixels a side and enlarge it again (bilinear).

    Both steps are linear along rows and along columns, so both together are one product with a matrix on each side.

    Args:
        probability: Part of the images that are changed.
        resolution: Least and greatest resolution in pixels a side; each is equally likely.

    Raises:
        ConfigError: If the resolutions are out of range or order.
    """

    stage = Stage.CAMERA
    changes_quality = True
    moves_keypoints = False

    def __init__(self, probability: Probability = 0.5, resolution: tuple[int, int] = (8, 24)) -> None:
        low, high = resolution
        in_range("low_resolution resolution", low, 2, LARGEST)
        in_range("low_resolution resolution", high, 2, LARGEST)
        if low > high:
            raise ConfigError(f"low_resolution resolution is [{low}, {high}]; write the lesser one first.")
        self.probability = probability
        self.resolution = low, high

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Reduce some images."""
        rows = draw.chosen(self.probability)
        if not len(rows):
            return image
        low, high = self.resolution
        number = (draw("resolution")[rows] * (high - low + 1)).astype(np.int64)
        down, across = (
            torch.from_numpy(_matrices(size, low, high)).to(image.device)[on_device(number, image)].unsqueeze(1)
            for size in image.shape[2:]
        )
        return put_rows(image, rows, as_pixels(down @ take_rows(image, rows).float() @ across.mT))


@cache
def _matrices(size: int, low: int, high: int) -> Numbers:
    """What a line of ``size`` pixels becomes at each resolution, (high - low + 1, size, size), float32."""
    # An image is not enlarged to be reduced.
    sides = [min(side, size) for side in range(low, high + 1)]
    return np.stack([linear_weights(side, size) @ area_weights(size, side) for side in sides]).astype(np.float32)
