"""Show a face as a coarser camera would."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.jpeg import MCU, stored_as_jpeg
from facelab.data.transforms.kernels import KERNELS, Kernel, drawn_kernels, kernel_weights
from facelab.data.transforms.noise import gaussian_noise
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows
from facelab.errors import ConfigError, in_range

LARGEST = 4096  # pixels a side; more is a mistyped number
SHARPEST = 1e-3  # pixels; a deviation of nothing would be divided by

Recipe = Literal["average", "interpolation", "camera", "second_order"]
Range = tuple[float, float]
Sides = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """What a recipe does to an image.

    Attributes:
        shrink: Kernels of which one reduces it.
        enlarge: Kernels of which one enlarges it.
        sensor: Whether it is blurred before it is reduced, and gets noise and a JPEG file after it.
        twice: Whether all of that but the enlarging happens twice.
    """

    shrink: tuple[Kernel, ...]
    enlarge: tuple[Kernel, ...]
    sensor: bool = False
    twice: bool = False


RECIPES: dict[Recipe, Steps] = {
    "average": Steps(("area",), ("linear",)),
    "interpolation": Steps(KERNELS, KERNELS),
    "camera": Steps(("area",), ("cubic",), sensor=True),
    "second_order": Steps(KERNELS, KERNELS, sensor=True, twice=True),
}


@TRANSFORMS.register("low_resolution")
class LowResolution(Transform):
    """Reduce an image to a few pixels a side and enlarge it again, by one of several recipes.

    - ``average`` averages, and enlarges bilinearly.
    - ``interpolation`` takes for either, independently, one of OpenCV's nearest, linear, area, cubic and lanczos4, as
      AdaFace does (Kim et al., CVPR 2022, arXiv:2204.00964).
    - ``camera`` blurs as a lens does, averages, adds noise of the sensor, stores a JPEG file, and enlarges bicubically.
    - ``second_order`` blurs, reduces by any kernel, adds noise and stores a JPEG file twice, first at a resolution
      between the full and the last one, as of a picture that was sent on; after Real-ESRGAN (Wang et al., ICCVW 2021,
      arXiv:2107.10833, Sect. 3.2).

    Args:
        probability: Part of the images that are changed.
        resolution: Least and greatest resolution in pixels a side; each is equally likely.
        recipe: How it is done.
        blur: Deviation of the blur in pixels of the reduced image; this range and those that follow are for ``camera``
            and ``second_order``, and drawn from evenly.
        noise: Deviation of the noise, in grey values of 0..255.
        jpeg: Quality of the file, 1..100.

    Raises:
        ConfigError: If a value is out of range, or a range upside down.
    """

    stage = Stage.CAMERA
    changes_quality = True
    moves_keypoints = False

    def __init__(
        self,
        probability: Probability = 0.5,
        resolution: tuple[int, int] = (8, 24),
        recipe: Recipe = "average",
        blur: Range = (0.2, 0.8),
        noise: Range = (0.0, 6.0),
        jpeg: tuple[int, int] = (50, 95),
    ) -> None:
        _check_range("resolution", resolution, 2, LARGEST)
        _check_range("blur", blur, 0, 16)
        _check_range("noise", noise, 0, 255)
        _check_range("jpeg", jpeg, 1, 100)
        self.probability = probability
        self.resolution, self.recipe = resolution, recipe
        self.blur, self.noise, self.jpeg = blur, noise, jpeg

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Reduce some images."""
        rows = draw.chosen(self.probability)
        if not len(rows):
            return image
        steps, size = RECIPES[self.recipe], np.array(image.shape[2:])
        full = np.tile(size, (len(rows), 1))
        # An image is not enlarged to be reduced.
        last = np.minimum(_whole(self.resolution, draw("resolution")[rows])[:, None], full)
        values, sides = take_rows(image, rows).float(), full
        if steps.twice:
            # Evenly by the logarithm: of half the size is as likely as of a quarter.
            between = np.rint(last * (full / last) ** draw("between")[rows][:, None]).astype(np.int64)
            values = self._reduced(values, sides, between, size, draw, rows, "first ")
            sides = between
        values = self._reduced(values, sides, last, np.minimum(size, self.resolution[1]), draw, rows)
        kernels = drawn_kernels(steps.enlarge, draw("enlarge")[rows])
        return put_rows(image, rows, as_pixels(resized(values, kernels, last, full, size)))

    def _reduced(
        self, values: Tensor, old: Sides, new: Sides, room: Sides, draw: Draws, rows: Sides, which: str = ""
    ) -> Tensor:
        """Images that fill ``old`` pixels, (R, 2), at ``new`` ones, in whole grey values."""
        steps = RECIPES[self.recipe]
        kernels = drawn_kernels(steps.shrink, draw(f"{which}shrink")[rows])
        if not steps.sensor:
            return resized(values, kernels, old, new, room).round_().clamp_(0, 255)
        blur = _real(self.blur, draw(f"{which}blur")[rows])
        noise = _real(self.noise, draw(f"{which}noise")[rows])
        blurred = gaussian_blur(values, blur[:, None] * (old / new), old)
        small = resized(blurred, kernels, old, new, -(-room // MCU) * MCU)
        grain = gaussian_noise(draw.words(f"{which}grain")[rows], tuple(small.shape[1:]), small.device)
        noisy = small + grain * on_device(noise.astype(np.float32), small)[:, None, None, None]
        quality = _whole(self.jpeg, draw(f"{which}jpeg")[rows])
        return stored_as_jpeg(continued(noisy.round_().clamp_(0, 255), new), quality)


def resized(values: Tensor, kernels: list[Kernel], old: Sides, new: Sides, room: Sides) -> Tensor:
    """Images resized as ``cv2.resize`` does it, before its result is rounded.

    Resizing is linear along rows and along columns: a product with a matrix on either side.

    Args:
        values: Images in the upper left corners of (B, 3, H, W).
        kernels: What resizes each.
        old: Its height and width, (B, 2).
        new: Those that it gets.
        room: Height and width of the result, in whose corners they lie; what is beyond is 0.
    """
    down, across = (
        on_device(_matrices(kernels, old[:, axis], new[:, axis], (int(room[axis]), values.shape[2 + axis])), values)
        for axis in (0, 1)
    )
    return down @ values @ across.mT


def _matrices(kernels: list[Kernel], old: Sides, new: Sides, shape: tuple[int, int]) -> NDArray[np.float32]:
    matrices = np.zeros((len(kernels), 1, *shape), np.float32)
    for matrix, kernel, before, after in zip(matrices, kernels, old.tolist(), new.tolist(), strict=True):
        matrix[0, :after, :before] = kernel_weights(kernel, before, after)
    return matrices


def gaussian_blur(values: Tensor, deviation: Numbers, sides: Sides) -> Tensor:
    """Images blurred along both axes; at their borders nothing beyond them counts.

    Args:
        values: Images in the upper left corners of (B, 3, H, W).
        deviation: Along rows and columns of each, in pixels, (B, 2).
        sides: Its height and width, (B, 2).
    """
    down, across = (_bells(values, deviation[:, axis], sides[:, axis], values.shape[2 + axis]) for axis in (0, 1))
    return down @ values @ across.mT


def _bells(values: Tensor, deviation: Numbers, sides: Sides, length: int) -> Tensor:
    pixel = torch.arange(length, device=values.device)
    width = on_device(np.maximum(deviation, SHARPEST).astype(np.float32), values)[:, None, None, None]
    bell = torch.exp(-0.5 * ((pixel[:, None] - pixel) / width).square())
    bell = bell * (pixel < on_device(sides, values)[:, None, None, None])
    # Rows beyond the image have no weight at all.
    return bell / bell.sum(dim=3, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def continued(values: Tensor, sides: Sides) -> Tensor:
    """Images in upper left corners, with the last row and column repeated beyond, as JPEG fills its blocks."""
    rows, columns = (_up_to(sides[:, axis], values.shape[2 + axis], values) for axis in (0, 1))
    tall = values.gather(2, rows[:, None, :, None].expand_as(values))
    return tall.gather(3, columns[:, None, None, :].expand_as(values))


def _up_to(last: Sides, length: int, values: Tensor) -> Tensor:
    pixel = np.minimum(np.arange(length), last[:, None] - 1)
    return on_device(pixel, values)


def _whole(given: tuple[int, int], number: Numbers) -> Sides:
    """A whole number of a range for each of [0, 1); each is equally likely."""
    return given[0] + (number * (given[1] - given[0] + 1)).astype(np.int64)


def _real(given: Range, number: Numbers) -> Numbers:
    return given[0] + number * (given[1] - given[0])


def _check_range(name: str, given: Range, lowest: float, highest: float) -> None:
    for value in given:
        in_range(f"low_resolution {name}", value, lowest, highest)
    if given[0] > given[1]:
        raise ConfigError(f"low_resolution {name} is [{given[0]:g}, {given[1]:g}]; write the lesser one first.")
