"""OpenCV's five ways to resize, each as the weights that take a line of pixels to another length."""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facelab.data.transforms.draws import Numbers
from facelab.data.transforms.resize import area_weights, linear_weights

Kernel = Literal["nearest", "linear", "area", "cubic", "lanczos4"]
KERNELS: tuple[Kernel, ...] = ("nearest", "linear", "area", "cubic", "lanczos4")

CUBIC = -0.75
"""Slope of the cubic kernel at 1; Pillow and MATLAB have -0.5."""


@lru_cache(
    maxsize=1024
)  # pairs of sizes are many where an image is reduced twice; one takes up to 100 kB at 112 pixels
def kernel_weights(kernel: Kernel, size: int, length: int) -> Numbers:
    """Weights of ``size`` pixels at ``length`` places of their line, (length, size); each row adds up to 1.

    Only ``area`` averages where the line shrinks; the others take single pixels, and alias.
    """
    if kernel == "area":
        return area_weights(size, length) if length <= size else _enlarging_area(size, length)
    if kernel == "linear":
        return linear_weights(size, length)
    # The quotient is inverted as OpenCV does it: nearest rounds down, and a last bit decides which pixel is taken.
    scale, place = 1.0 / (length / size), np.arange(length)
    if kernel == "nearest":  # OpenCV does not look from the centre of the new pixel
        return np.asarray(np.eye(size)[np.floor(place * scale).astype(int).clip(0, size - 1)])
    reach, weight = (2, _cubic) if kernel == "cubic" else (4, _lanczos)
    return _taps(size, np.asarray((place + 0.5) * scale - 0.5, np.float64), reach, weight)


def _taps(size: int, place: Numbers, reach: int, weight: Callable[[Numbers], Numbers]) -> Numbers:
    """Weights by the distance to ``reach`` pixels on either side; beyond the border the last pixel goes on."""
    pixel = np.floor(place).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    values = weight(place[:, None] - pixel)
    weights = np.zeros((len(place), size))
    np.add.at(weights, (np.arange(len(place))[:, None], pixel.clip(0, size - 1)), values)
    shares: Numbers = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _cubic(distance: Numbers) -> Numbers:
    x = np.abs(distance)
    near = ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0
    far = ((CUBIC * x - 5.0 * CUBIC) * x + 8.0 * CUBIC) * x - 4.0 * CUBIC
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(distance: Numbers) -> Numbers:
    return np.asarray(np.sinc(distance) * np.sinc(distance / 4.0))


def _enlarging_area(size: int, length: int) -> Numbers:
    """What OpenCV calls area where a line grows: each old pixel keeps its part, with a narrow ramp to the next."""
    scale, place = size / length, np.arange(length)
    first = np.floor(place * scale).astype(np.int64)
    ramp = (place + 1) - (first + 1) / scale
    second = np.where(ramp <= 0.0, 0.0, ramp - np.floor(ramp))
    weights = np.zeros((length, size))
    np.add.at(weights, (place, first.clip(0, size - 1)), 1.0 - second)
    np.add.at(weights, (place, (first + 1).clip(0, size - 1)), second)
    return weights


def drawn_kernels(kernels: tuple[Kernel, ...], number: Numbers) -> list[Kernel]:
    """A kernel for each number in [0, 1); each is equally likely."""
    chosen: NDArray[np.int64] = (number * len(kernels)).astype(np.int64)
    return [kernels[place] for place in chosen]
