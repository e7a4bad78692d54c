"""What a network expects of its input: size, colour order and value range, and the one function that obeys it."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import cv2
import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor

from facelab.errors import ConfigError, DataError, in_range, one_of

ColourOrder = Literal["RGB", "BGR"]
LARGEST_SIDE = 1 << 10  # pixels; aligned faces have 112 to 448
LEAST_SIDE, LARGEST_ZOOM, LARGEST_STRETCH = 8, 4.0, 1.05
"""Aligned crops of another size: from 8 pixels to four times what the network takes, sides in its ratio within 5 %."""


@dataclass(frozen=True)
class InputSpec:
    """Size, colour order and value range of a network's input; part of the model and of its checkpoints.

    A stored pixel x in 0..255 becomes ``(x - mean) / std``.

    Attributes:
        height: Rows of the image, in pixels.
        width: Columns of the image, in pixels.
        colour: Order of the three channels.
        mean: Subtracted from a pixel in 0..255.
        std: Divides the result; 127.5 gives -1..1, 128 is FaceX-Zoo's, 255 with mean 0 gives 0..1.
        face_height: Rows of the aligned face of which the network sees the upper ``height``; None for all.

    Raises:
        ConfigError: If a side is no whole number of pixels, the face has fewer rows than the network sees, the colour
            order is another, or mean or std is no number that pixels can be normalised with.
    """

    # A mistyped key in YAML is refused.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    height: int = 112
    width: int = 112
    colour: ColourOrder = "RGB"
    mean: float = 127.5
    std: float = 127.5
    face_height: int | None = None

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width), ("face_height", self.aligned[0])):
            if not isinstance(side, int):
                raise ConfigError(f"input_spec {name} is {side!r}, but must be a whole number of pixels.")
            in_range(f"input_spec {name}", side, 1, LARGEST_SIDE)
        for name, number in (("mean", self.mean), ("std", self.std)):
            if not isinstance(number, int | float):
                raise ConfigError(f"input_spec {name} is {number!r}, but must be a number.")
        if self.aligned[0] < self.height:
            raise ConfigError(
                f"input_spec face_height is {self.face_height}, but the network sees {self.height} rows of the face."
            )
        one_of("input_spec colour", self.colour, get_args(ColourOrder))
        in_range("input_spec mean", self.mean, -math.inf, math.inf, low_open=True, high_open=True)
        in_range("input_spec std", self.std, 0.0, math.inf, low_open=True, high_open=True)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the network sees, in pixels."""
        return self.height, self.width

    @property
    def aligned(self) -> tuple[int, int]:
        """(height, width) of the aligned faces that it is cut from, in pixels."""
        return self.height if self.face_height is None else self.face_height, self.width

    def describe(self) -> str:
        """For example ``112x112 RGB, -1..1``."""
        low, high = (0 - self.mean) / self.std, (255 - self.mean) / self.std
        cut = "" if self.face_height is None else f" (upper part of {self.face_height}x{self.width})"
        return f"{self.height}x{self.width}{cut} {self.colour}, {low:.4g}..{high:.4g}"


def normalise(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Turn stored pixels into a network's input, on whatever device they are.

    Args:
        pixels: RGB, uint8, aligned faces of the size ``spec.aligned``, (B, 3, H, W); any memory format, which is kept.
        spec: What the network expects.

    Returns:
        float32, (B, 3, spec.height, W): the upper part, in the network's colour order and value range.

    Raises:
        DataError: If the pixels are not uint8, not three channels, or of another size than the network takes.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise DataError(
            f"images must be uint8 RGB of shape (B, 3, H, W), got {pixels.dtype} of shape {tuple(pixels.shape)}."
        )
    if tuple(pixels.shape[2:]) != spec.aligned:
        (height, width), (rows, columns) = pixels.shape[2:], spec.aligned
        raise DataError(
            f"images are {height}x{width}, but the network takes {rows}x{columns}; "
            "set data.size, align the images to that size, or set data.resize=true."
        )
    pixels = pixels[:, :, : spec.height]
    if spec.colour == "BGR":
        pixels = pixels.flip(1)
    # A pixel has 256 values: each is computed once, and gives the same bits as arithmetic on every pixel.
    if pixels.device.type == "cpu":
        return _looked_up(pixels, _scaled(torch.arange(256, dtype=torch.float32), spec))
    return _scaled(pixels.to(torch.float32), spec)


def check_aligned_shape(size: tuple[int, int], wanted: tuple[int, int], what: str) -> None:
    """Refuse to resize what cannot be an aligned face: photos mostly have another shape, or far more pixels.

    Args:
        size: Height and width of an image, in pixels.
        wanted: Those that the network takes.
        what: Begins the message: which image has what size, and what is taken.

    Raises:
        DataError: If the sides are not in the ratio of those wanted, or the image is too small or too large.
    """
    zooms = size[0] / wanted[0], size[1] / wanted[1]
    if min(size) < LEAST_SIDE or max(zooms) > LARGEST_ZOOM or max(zooms) / min(zooms) > LARGEST_STRETCH:
        raise DataError(
            f"{what}, and that is no aligned face of another size (sides in that ratio within "
            f"{100 * (LARGEST_STRETCH - 1):.0f} %, {LEAST_SIDE} pixels at least, {LARGEST_ZOOM:g} times that size at "
            "most); align it first (facelab data align), or ask for any photo (any_photo=True, --any-photo, "
            "data.any_photo: true)."
        )


def check_any_photo(any_photo: bool, resize: bool) -> None:
    """Refuse the one without the other.

    Raises:
        ConfigError: If any photo may be resized, but none is.
    """
    if any_photo and not resize:
        raise ConfigError("any_photo says what may be resized; it goes with resize.")


def _scaled(values: Tensor, spec: InputSpec) -> Tensor:
    return values.sub_(spec.mean).div_(spec.std)


def _looked_up(pixels: Tensor, table: Tensor) -> Tensor:
    """``table`` at each pixel. Memory is written once instead of three times, and comes from NumPy in large pages."""
    if pixels.stride() != torch.empty_like(pixels).stride():
        pixels = pixels.clone()  # what had gaps in memory has none now
    values = len(pixels) and pixels[0].numel()
    found = np.empty((len(pixels), values), np.float32)
    cv2.LUT(pixels.as_strided(found.shape, (values, 1)).numpy(), table.numpy(), dst=found)
    return torch.from_numpy(found).as_strided(pixels.shape, pixels.stride())
