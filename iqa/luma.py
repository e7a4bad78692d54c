"""Grey images."""

import torch
from torch import Tensor

RED, GREEN, BLUE = 19595, 38470, 7471  # 0.299, 0.587, 0.114 (ITU-R BT.601) in units of 2^-16


def luma(pixels: Tensor) -> Tensor:
    """Grey values from 0 to 255 of RGB images, as Pillow's mode ``L`` has them before rounding.

    Args:
        pixels: uint8, (B, 3, H, W).

    Returns:
        float32, (B, H, W).
    """
    return _weighted(pixels).to(torch.float32) / 65536


def rounded_luma(pixels: Tensor) -> Tensor:
    """Grey values from 0 to 255 exactly as Pillow's mode ``L``, (B, 3, H, W) -> int32, (B, H, W)."""
    return (_weighted(pixels) + 32768) >> 16


def _weighted(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.to(torch.int32).unbind(1)
    return RED * red + GREEN * green + BLUE * blue
