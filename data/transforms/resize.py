"""Images of a batch at another size, on their device: averaged where they shrink, bilinear where they grow."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from facelab.data.transforms.draws import Numbers
from facelab.data.transforms.rows import as_pixels


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """A batch at another size, as `facelab.data.formats.images.resize_image` makes it of each image, to one grey value.

    Args:
        image: uint8, (B, 3, H, W).
        height: Rows of the result, in pixels.
        width: Columns of the result.

    Returns:
        uint8, (B, 3, height, width); the same tensor if the size is that already.
    """
    rows, columns = image.shape[2:]
    if (rows, columns) == (height, width):
        return image
    shrinks = height * width < rows * columns
    weights = area_weights if shrinks and height <= rows and width <= columns else linear_weights
    down, across = (
        torch.from_numpy(weights(old, new)).to(image.device, torch.float32)
        for old, new in ((rows, height), (columns, width))
    )
    return as_pixels(down @ image.float() @ across.mT).contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=256)
def area_weights(size: int, smaller: int) -> Numbers:
    """Share of each of ``size`` pixels in each of ``smaller`` equal parts of their line, (smaller, size)."""
    edges = np.arange(smaller + 1) * (size / smaller)
    pixel = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    shares: Numbers = overlap.clip(0.0) * (smaller / size)
    return shares


@lru_cache(maxsize=256)
def linear_weights(size: int, larger: int) -> Numbers:
    """Weights of ``size`` pixels at ``larger`` places of their line, (larger, size); two at most for each."""
    place = ((np.arange(larger) + 0.5) * (size / larger) - 0.5).clip(0.0, size - 1.0)
    return (1.0 - np.abs(place[:, None] - np.arange(size))).clip(0.0)
