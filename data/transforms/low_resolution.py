"""Show a face as a coarser camera would."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.kernels import KERNELS, Kernel, drawn_kernels, kernel_weights
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows
from facelab.errors import ConfigError, in_range

LARGEST = 4096  # pixels a side; more is a mistyped number

Recipe = Literal["average", "interpolation"]
KERNELS_OF: dict[Recipe, tuple[tuple[Kernel, ...], tuple[Kernel, ...]]] = {
    "average": (("area",), ("linear",)),
    "interpolation": (KERNELS, KERNELS),
}
"""What reduces images and what enlarges them; each image gets one of either."""


@TRANSFORMS.register("low_resolution")
class LowResolution(Transform):
    """Reduce an image to a few pixels a side and enlarge it again.

    Recipes: ``average`` averages and enlarges bilinearly; ``interpolation`` takes for either, independently, one of
    OpenCV's nearest, linear, area, cubic and lanczos4, as AdaFace does (Kim et al., CVPR 2022, arXiv:2204.00964).

    Args:
        probability: Part of the images that are changed.
        resolution: Least and greatest resolution in pixels a side; each is equally likely.
        recipe: How it is done.

    Raises:
        ConfigError: If the resolutions are out of range or order.
    """

    stage = Stage.CAMERA
    changes_quality = True
    moves_keypoints = False

    def __init__(
        self, probability: Probability = 0.5, resolution: tuple[int, int] = (8, 24), recipe: Recipe = "average"
    ) -> None:
        low, high = resolution
        in_range("low_resolution resolution", low, 2, LARGEST)
        in_range("low_resolution resolution", high, 2, LARGEST)
        if low > high:
            raise ConfigError(f"low_resolution resolution is [{low}, {high}]; write the lesser one first.")
        self.probability = probability
        self.resolution = low, high
        self.recipe = recipe

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Reduce some images."""
        rows = draw.chosen(self.probability)
        if not len(rows):
            return image
        low, high = self.resolution
        sides = low + (draw("resolution")[rows] * (high - low + 1)).astype(np.int64)
        shrinking, enlarging = KERNELS_OF[self.recipe]
        down = drawn_kernels(shrinking, draw("shrink")[rows])
        up = drawn_kernels(enlarging, draw("enlarge")[rows])
        return put_rows(image, rows, reduce_and_enlarge(take_rows(image, rows), sides, high, down, up))


def reduce_and_enlarge(
    image: Tensor, sides: NDArray[np.int64], largest: int, down: list[Kernel], up: list[Kernel]
) -> Tensor:
    """Images reduced to squares and enlarged again, as two calls of ``cv2.resize`` do it, to two grey values.

    Args:
        image: uint8, (B, 3, H, W).
        sides: Pixels a side in between, (B,); an image is not enlarged to be reduced.
        largest: Bound of ``sides``, the same for any part of a batch.
        down: Kernel that reduces each image.
        up: Kernel that enlarges it.
    """
    rows_down, rows_up = _both_ways(image.shape[2], sides, largest, down, up)
    columns_down, columns_up = _both_ways(image.shape[3], sides, largest, down, up)
    # Resizing is linear along rows and along columns: a product with a matrix on either side. Grey values are whole in
    # between, as in the file of a small picture.
    small = on_device(rows_down, image) @ image.float() @ on_device(columns_down, image).mT
    return as_pixels(on_device(rows_up, image) @ small.round_().clamp_(0, 255) @ on_device(columns_up, image).mT)


def _both_ways(
    size: int, sides: NDArray[np.int64], largest: int, down: list[Kernel], up: list[Kernel]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Matrices that reduce lines of ``size`` pixels, (B, 1, L, size), and that enlarge them, (B, 1, size, L)."""
    least = min(largest, size)
    reducing = np.zeros((len(sides), 1, least, size), np.float32)
    enlarging = np.zeros((len(sides), 1, size, least), np.float32)
    for row, side in enumerate(np.minimum(sides, size)):
        reducing[row, 0, :side] = kernel_weights(down[row], size, side)
        enlarging[row, 0, :, :side] = kernel_weights(up[row], side, size)
    return reducing, enlarging
