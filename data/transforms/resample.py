"""Images and landmarks under a scale and a shift of the picture's axes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from facelab.data.transforms.draws import Numbers
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows


def resample(image: Tensor, rows: NDArray[np.int64], scale: Numbers, shift: Numbers) -> Tensor:
    """Images in which place x shows what lay at ``scale * x + shift``, x from -1 to 1 between the outer borders.

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
    part = take_rows(image, rows).float()
    grid = affine_grid(on_device(theta, image), list(part.shape), align_corners=False)
    sampled = grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return put_rows(image, rows, as_pixels(sampled))


def resample_points(
    keypoints: Tensor, size: tuple[int, int], rows: NDArray[np.int64], scale: Numbers, shift: Numbers
) -> Tensor:
    """Where points lie after `resample` with the same ``rows``, ``scale`` and ``shift``.

    Args:
        keypoints: (x, y) in pixels, 0 being the centre of the first, (B, P, 2).
        size: Height and width of the images.
        rows: The R images that change.
        scale: (R, 2), along x and y.
        shift: (R, 2).
    """
    half = torch.tensor([size[1], size[0]], dtype=keypoints.dtype, device=keypoints.device) / 2
    factor, offset = (on_device(part, keypoints).to(keypoints.dtype)[:, None] for part in (scale, shift))
    moved = keypoints.clone()
    place = (keypoints[rows] + 0.5) / half - 1  # pixel centres to -1..1 between the outer borders
    moved[rows] = ((place - offset) / factor + 1) * half - 0.5
    return moved
