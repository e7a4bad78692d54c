"""What a JPEG file leaves of an image, on any device."""

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.transforms.draws import Numbers
from facelab.data.transforms.resize import linear_weights
from facelab.data.transforms.rows import on_device

BLOCK = 8
MCU = 2 * BLOCK
"""Pixels a side of what is coded together: two by two blocks of brightness, and one of either colour."""

# ITU-T T.81, Annex K, tables K.1 and K.2.
BRIGHTNESS = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
COLOUR = (
    """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99"""
    + 32 * " 99"
)
STEPS = np.array([BRIGHTNESS.split(), COLOUR.split(), COLOUR.split()], np.float64).reshape(1, 3, BLOCK, BLOCK)

# JFIF: red, green and blue to brightness and two colours, less their offset of 128.
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def stored_as_jpeg(image: Tensor, quality: NDArray[np.int64]) -> Tensor:
    """Images as they come back from baseline JPEG files with colours at half the resolution, to a few grey values.

    Args:
        image: RGB in 0..255, float, (B, 3, H, W); both sides are multiples of `MCU`.
        quality: Of each file, 1..100, (B,).

    Returns:
        Whole numbers of 0..255, float, of the same shape.
    """
    transform = torch.tensor(TO_YCC, dtype=image.dtype).to(image.device, non_blocking=True)
    ycc = torch.einsum("dc,bchw->bdhw", transform, image)
    steps = on_device(quantisation(quality).astype(np.float32), image)
    brightness = _coded(ycc[:, :1] - 128, steps[:, :1]) + 128
    small = torch.nn.functional.avg_pool2d(ycc[:, 1:], 2)
    colour = _doubled(_coded(small.round(), steps[:, 1:]))
    stored = torch.cat([brightness.round().clamp(0, 255), colour.round().clamp(-128, 127)], dim=1)
    # Inverted on the host: on a device it would be waited for.
    back = torch.tensor(np.linalg.inv(TO_YCC), dtype=image.dtype).to(image.device, non_blocking=True)
    return torch.einsum("dc,bchw->bdhw", back, stored).round_().clamp_(0, 255)


def quantisation(quality: NDArray[np.int64]) -> Numbers:
    """By what coefficients are divided, as libjpeg scales the tables, (B, 3, 8, 8)."""
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None, None]
    return np.asarray(np.floor((STEPS * scale + 50) / 100).clip(1, 255))


def _coded(values: Tensor, steps: Tensor) -> Tensor:
    """Values (B, C, H, W) after their blocks were transformed, rounded in ``steps`` (B, C, 8, 8) and brought back."""
    batch, channels, height, width = values.shape
    cosines = on_device(_cosines(), values).to(values.dtype)
    blocks = values.reshape(batch, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    steps = steps[:, :, None, None]
    coefficients = (cosines @ blocks.round() @ cosines.mT / steps).round_() * steps
    return (cosines.mT @ coefficients @ cosines).transpose(3, 4).reshape(values.shape)


def _doubled(colour: Tensor) -> Tensor:
    """Twice as high and wide; libjpeg's "fancy upsampling" is bilinear."""
    height, width = colour.shape[2:]
    down, across = (on_device(linear_weights(side, 2 * side).astype(np.float32), colour) for side in (height, width))
    return down @ colour @ across.mT


@cache
def _cosines() -> Numbers:
    """The orthonormal discrete cosine transform of eight values, (8, 8)."""
    place = (np.arange(BLOCK) + 0.5) * math.pi / BLOCK
    rows = np.cos(np.arange(BLOCK)[:, None] * place) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return np.asarray(rows)
