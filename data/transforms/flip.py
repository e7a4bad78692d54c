"""Mirror images left to right."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.rows import on_device

MIRRORED_ORDER = [1, 0, 2, 4, 3]
"""What was the left eye or corner of the mouth in the picture is the right one in its mirror image."""


@TRANSFORMS.register("flip")
class Flip(Transform):
    """Mirror left to right.

    Args:
        probability: Part of the images that are mirrored.
    """

    stage = Stage.MIRROR
    changes_quality = False
    moves_keypoints = True

    def __init__(self, probability: Probability = 0.5) -> None:
        self.probability = probability

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Mirror some images."""
        rows = draw.chosen(self.probability)
        return flip_in_memory(image, rows) if image.device.type == "cpu" else flip_by_mask(image, rows)

    def keypoints(self, keypoints: Tensor, size: tuple[int, int], draw: Draws) -> Tensor:
        """Mirror the points of the same images; left and right swap their places in the list."""
        rows = draw.chosen(self.probability)
        moved = keypoints.clone()
        moved[rows] = keypoints[rows][:, MIRRORED_ORDER]
        # Coordinates count from the centre of the first pixel, so column 0 becomes column W - 1.
        moved[rows, :, 0] = size[1] - 1 - moved[rows, :, 0]
        return moved


def flip_in_memory(image: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Some images mirrored, on a CPU: only those are touched, by OpenCV, which is quicker there than PyTorch."""
    pixels = image.permute(0, 2, 3, 1).numpy().copy()
    for row in rows:
        cv2.flip(pixels[row], 1, dst=pixels[row])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def flip_by_mask(image: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """The same on any device: ``image ^ ((mirrored ^ image) & mask)`` takes no gather and asks for no memory twice."""
    mask = np.zeros((len(image), 1, 1, 1), np.uint8)
    mask[rows] = 255
    return image.flip(3).bitwise_xor_(image).bitwise_and_(on_device(mask, image)).bitwise_xor_(image)
