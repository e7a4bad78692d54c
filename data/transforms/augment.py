"""Random changes to a batch of images on the device, without a loop over images and without waiting for the device.

What happens to an image depends only on (seed, epoch, step, row of the global batch), so it is the same for any number
of processes and after a restart. Each kind of change draws from its own numbers: switching one on leaves the others as
they were.
"""

from dataclasses import replace
from enum import IntEnum, auto
from typing import Annotated, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from facelab.config import Strict
from facelab.data.base import Batch
from facelab.data.loading.keyed_random import uniform

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Numbers = NDArray[np.float64]


class Draw(IntEnum):
    """Which of an image's random numbers decides what; append only, or old runs cannot be repeated."""

    FLIP = auto()
    CROP = auto()
    CROP_AREA = auto()
    CROP_X = auto()
    CROP_Y = auto()
    SHIFT = auto()
    SHIFT_X = auto()
    SHIFT_Y = auto()
    LIGHT = auto()
    BRIGHTNESS = auto()
    CONTRAST = auto()
    ERASE = auto()
    ERASE_AREA = auto()
    ERASE_SHAPE = auto()
    ERASE_X = auto()
    ERASE_Y = auto()


class Crop(Strict):
    """Cut out a part with the image's proportions, anywhere inside, and enlarge it to the full size (bilinear).

    Attributes:
        probability: Part of the images that are cropped.
        smallest: Area of the smallest crop, as a part of the image; areas up to 1 are equally likely.
    """

    probability: Probability = 0.2
    smallest: float = Field(default=0.5, gt=0.0, le=1.0)


class Shift(Strict):
    """Move the image by whole pixels; what comes in is black.

    Attributes:
        probability: Part of the images that are moved.
        pixels: Farthest move along each axis, either way.
    """

    probability: Probability = 0.5
    pixels: int = Field(default=4, ge=1)


class Light(Strict):
    """Change brightness and contrast.

    Attributes:
        probability: Part of the images that are changed.
        brightness: Largest addition to all pixels, either way, as a part of 255.
        contrast: Differences from the image's mean are multiplied by ``1 - contrast`` to ``1 + contrast``.
    """

    probability: Probability = 0.2
    brightness: Probability = 0.2
    contrast: Probability = 0.2


class Erase(Strict):
    """Paint over a rectangle that lies inside of the image.

    Attributes:
        probability: Part of the images that lose a rectangle.
        smallest: Area of the smallest rectangle, as a part of the image.
        largest: Area of the largest.
        elongation: The rectangle is up to so many times as wide as high or as high as wide.
        fill: Grey value to paint with, 0..255.
    """

    probability: Probability = 0.2
    smallest: float = Field(default=0.02, gt=0.0, le=1.0)
    largest: float = Field(default=0.2, gt=0.0, le=1.0)
    elongation: float = Field(default=2.0, ge=1.0)
    fill: int = Field(default=0, ge=0, le=255)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest is {self.smallest:g}, above largest, {self.largest:g}")
        return self


class AugmentConfig(Strict):
    """What is changed at random; only the flip unless asked.

    Attributes:
        flip: Part of the images that are mirrored left to right.
        crop: See `Crop`.
        shift: See `Shift`.
        light: See `Light`.
        erase: See `Erase`.
    """

    flip: Probability = 0.5
    crop: Crop | None = None
    shift: Shift | None = None
    light: Light | None = None
    erase: Erase | None = None

    def build(self, seed: int) -> "Augment":
        """The changes themselves."""
        return Augment(self, seed)


class Augment:
    """Applies an `AugmentConfig`: crop, shift, light, erase, flip, in this order.

    Args:
        config: What to change.
        seed: Chooses the random numbers.
    """

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        self.config = config
        self._seed = seed

    def __call__(self, batch: Batch, epoch: int, step: int, first_row: int = 0) -> Batch:
        """The batch with changed images, on the same device; the given one stays as it is.

        Args:
            batch: Images uint8, (B, 3, H, W).
            epoch: Epoch of the batch.
            step: Its number in the epoch.
            first_row: Row of its first image in the global batch (`Loader.first_row`).
        """
        numbers = self._draw(batch.size, epoch, step, first_row)
        image, config = batch.image, self.config
        if config.crop is not None:
            image = _crop(image, numbers, config.crop)
        if config.shift is not None:
            image = _shift(image, numbers, config.shift)
        if config.light is not None:
            image = _light(image, numbers, config.light)
        if config.erase is not None:
            image = _erase(image, numbers, config.erase)
        return replace(batch, image=_flip(image, numbers, config.flip))

    def _draw(self, size: int, epoch: int, step: int, first_row: int) -> Numbers:
        """Numbers in [0, 1), (B, 1 + number of draws)."""
        rows = np.arange(first_row, first_row + size)[:, None]
        return uniform(self._seed, epoch, step, rows, np.arange(len(Draw) + 1))


def _flip(image: Tensor, numbers: Numbers, probability: float) -> Tensor:
    """Mirror some images. On a CPU only those are touched; elsewhere ``image ^ ((mirrored ^ image) & mask)``."""
    chosen = numbers[:, Draw.FLIP] < probability
    if image.device.type == "cpu":
        return _flip_in_memory(image, np.flatnonzero(chosen))
    mask = torch.from_numpy(np.where(chosen, np.uint8(255), np.uint8(0))[:, None, None, None])
    return image.flip(3).bitwise_xor_(image).bitwise_and_(mask.to(image.device, non_blocking=True)).bitwise_xor_(image)


def _flip_in_memory(image: Tensor, rows: NDArray[np.int64]) -> Tensor:
    pixels = image.permute(0, 2, 3, 1).numpy().copy()
    for row in rows:
        cv2.flip(pixels[row], 1, dst=pixels[row])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _take(image: Tensor, rows: Tensor) -> Tensor:
    """Some images of a batch; through the view (B, H, W, 3), in which each is one block of memory."""
    return image.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def _put(image: Tensor, rows: Tensor, changed: Tensor) -> Tensor:
    """A copy of the batch with some images replaced; channels_last.

    All images are gathered in their new order: on a CPU twice as quick as `index_copy`, which copies byte by byte.
    """
    size, device = image.shape[0], image.device
    order = torch.arange(size, device=device)
    order = order.index_copy(0, rows, torch.arange(size, size + len(rows), device=device))
    both = torch.cat([image.permute(0, 2, 3, 1), changed.permute(0, 2, 3, 1)])
    return both.index_select(0, order).permute(0, 3, 1, 2)


def _pixels(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


def _chosen(image: Tensor, numbers: Numbers, which: Draw, probability: float) -> tuple[Tensor, Numbers]:
    """Which images are changed (row numbers on the device), and their random numbers.

    Row numbers from the host, not a mask: the device need not be asked how many there are.
    """
    rows = np.flatnonzero(numbers[:, which] < probability)
    return torch.from_numpy(rows).to(image.device, non_blocking=True), numbers[rows]


def _resample(image: Tensor, rows: Tensor, scale: Numbers, shift: Numbers) -> Tensor:
    """Images in which pixel x shows what lay at ``scale * x + shift``, x from -1 to 1 between the outer borders.

    Args:
        image: uint8, (B, 3, H, W).
        rows: The R images to change.
        scale: (R, 2), along x and y.
        shift: (R, 2).
    """
    if not len(rows):
        return image
    theta = np.zeros((len(scale), 2, 3), np.float32)
    theta[:, [0, 1], [0, 1]] = scale
    theta[:, :, 2] = shift
    part = _take(image, rows).float()
    grid = affine_grid(
        torch.from_numpy(theta).to(image.device, non_blocking=True), list(part.shape), align_corners=False
    )
    sampled = grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _put(image, rows, _pixels(sampled))


def _crop(image: Tensor, numbers: Numbers, options: Crop) -> Tensor:
    rows, drawn = _chosen(image, numbers, Draw.CROP, options.probability)
    area = options.smallest + (1.0 - options.smallest) * drawn[:, Draw.CROP_AREA]
    side = np.sqrt(area)[:, None]
    place = 2.0 * drawn[:, [Draw.CROP_X, Draw.CROP_Y]] - 1.0
    # Samples stay between the centres of the outermost pixels: beyond them they would be mixed with black.
    height, width = image.shape[2:]
    room = np.maximum(1.0 - side - (1.0 - side) / np.array([width, height]), 0.0)
    return _resample(image, rows, side.repeat(2, axis=1), place * room)


def _shift(image: Tensor, numbers: Numbers, options: Shift) -> Tensor:
    rows, drawn = _chosen(image, numbers, Draw.SHIFT, options.probability)
    places = 2 * options.pixels + 1
    pixels = np.floor(drawn[:, [Draw.SHIFT_X, Draw.SHIFT_Y]] * places) - options.pixels
    height, width = image.shape[2:]
    return _resample(image, rows, np.ones_like(pixels), pixels * 2.0 / [width, height])


def _light(image: Tensor, numbers: Numbers, options: Light) -> Tensor:
    rows, drawn = _chosen(image, numbers, Draw.LIGHT, options.probability)
    both = 2.0 * drawn[:, [Draw.BRIGHTNESS, Draw.CONTRAST]] - 1.0
    both = both * [255.0 * options.brightness, options.contrast] + [0.0, 1.0]
    change = torch.from_numpy(both.astype(np.float32)).to(image.device, non_blocking=True)
    added, factor = change[:, 0, None, None, None], change[:, 1, None, None, None]
    part = _take(image, rows).float()
    mean = part.mean(dim=(1, 2, 3), keepdim=True)
    return _put(image, rows, _pixels((part - mean) * factor + mean + added))


def _erase(image: Tensor, numbers: Numbers, options: Erase) -> Tensor:
    height, width = image.shape[2:]
    erased = numbers[:, Draw.ERASE] < options.probability
    area = options.smallest + (options.largest - options.smallest) * numbers[:, Draw.ERASE_AREA]
    shape = options.elongation ** (2.0 * numbers[:, Draw.ERASE_SHAPE] - 1.0)
    columns = _span(width, np.sqrt(area * shape), numbers[:, Draw.ERASE_X], erased).to(image.device, non_blocking=True)
    rows = _span(height, np.sqrt(area / shape), numbers[:, Draw.ERASE_Y], erased).to(image.device, non_blocking=True)
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, torch.full((), options.fill, dtype=torch.uint8, device=image.device), image)


def _span(size: int, part: Numbers, place: Numbers, wanted: NDArray[np.bool_]) -> Tensor:
    """Marks for each image a stretch of pixels, (B, size), that covers ``part`` of the size and lies inside."""
    length = np.rint(np.minimum(part, 1.0) * size).clip(1, size)[:, None]
    start = np.floor(place[:, None] * (size - length + 1))
    pixel = np.arange(size)
    return torch.from_numpy((pixel >= start) & (pixel < start + length) & wanted[:, None])
