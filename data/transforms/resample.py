"""Images and landmarks under an affine map of the picture's axes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from facelab.data.transforms.draws import Numbers
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows


def scale_and_shift(scale: Numbers, shift: Numbers) -> Numbers:
    """Maps that send x to ``scale * x + shift``, for `resample`; both (R, 2), along x and y. Gives (R, 2, 3)."""
    maps = np.zeros((len(scale), 2, 3))
    maps[:, [0, 1], [0, 1]] = scale
    maps[:, :, 2] = shift
    return maps


def resample(image: Tensor, rows: NDArray[np.int64], maps: Numbers) -> Tensor:
    """Images in which place p shows what lay at ``A p + b`` (bilinear, black outside); x and y go from -1 to 1.

    Args:
        image: uint8, (B, 3, H, W).
        rows: The R images to change.
        maps: ``[A | b]`` of each, (R, 2, 3), between the outer borders: a turned picture that is not square is sheared
            too, unless A says otherwise.
    """
    if not len(rows):
        return image
    part = take_rows(image, rows).float()
    grid = affine_grid(on_device(maps.astype(np.float32), image), list(part.shape), align_corners=False)
    sampled = grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return put_rows(image, rows, as_pixels(sampled))


def resample_points(keypoints: Tensor, size: tuple[int, int], rows: NDArray[np.int64], maps: Numbers) -> Tensor:
    """Where points lie after `resample` with the same ``rows`` and ``maps``.

    Args:
        keypoints: (x, y) in pixels, 0 being the centre of the first, (B, P, 2).
        size: Height and width of the images.
        rows: The R images that change.
        maps: As of `resample`, (R, 2, 3).
    """
    half = (torch.tensor([size[1], size[0]], dtype=keypoints.dtype) / 2).to(keypoints.device, non_blocking=True)
    # An image's map says where a new pixel comes from; a point goes the other way.
    back = on_device(np.linalg.inv(maps[:, :, :2]), keypoints).to(keypoints.dtype)
    offset = on_device(maps[:, None, :, 2], keypoints).to(keypoints.dtype)
    moved = keypoints.clone()
    place = (keypoints[rows] + 0.5) / half - 1  # pixel centres to -1..1 between the outer borders
    moved[rows] = ((place - offset) @ back.mT + 1) * half - 0.5
    return moved
