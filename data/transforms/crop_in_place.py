"""Keep a part of an image where it is, and black out the rest."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.rows import on_device

TRIES = 10
"""As torchvision's RandomResizedCrop, of which the original takes only the rectangle."""

Box = NDArray[np.int64]


@TRANSFORMS.register("crop_in_place")
class CropInPlace(Transform):
    """Keep a rectangle where it is and black out the rest, as AdaFace does (Kim et al., CVPR 2022, arXiv:2204.00964).

    Args:
        probability: Part of the images that are changed.
        smallest: Area of the smallest rectangle, as a part of the image; areas up to 1 are equally likely, before those
            are dropped that are wider or higher than the image.
        elongation: The rectangle is up to so many times as wide as high or as high as wide.
    """

    stage = Stage.GEOMETRY
    changes_quality = True  # most of a face may be missing
    moves_keypoints = False

    def __init__(
        self,
        probability: Probability = 0.2,
        smallest: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2,
        elongation: Annotated[float, Field(ge=1.0)] = 4 / 3,
    ) -> None:
        self.probability = probability
        self.smallest = smallest
        self.elongation = elongation

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Black out the surroundings in some images."""
        size = image.shape[2], image.shape[3]
        kept = np.tile(np.array([0, 0, *size]), (len(image), 1))
        rows = draw.chosen(self.probability)
        kept[rows] = self._boxes(size, draw)[rows]
        return keep_boxes(image, kept)

    def _boxes(self, size: tuple[int, int], draw: Draws) -> Box:
        """Top, left, height and width of a rectangle for each image, (B, 4)."""
        area = (self.smallest + (1.0 - self.smallest) * draw("area", TRIES)) * size[0] * size[1]
        shape = self.elongation ** (2.0 * draw("shape", TRIES) - 1.0)
        sides = np.rint(np.stack([np.sqrt(area / shape), np.sqrt(area * shape)], axis=2)).clip(1)
        fits = (sides <= size).all(axis=2)
        first = sides[np.arange(len(sides)), fits.argmax(axis=1)]
        # Where none of the tries fits, the largest rectangle does.
        sides = np.where(fits.any(axis=1)[:, None], first, self._largest(size))
        place = np.stack([draw("y"), draw("x")], axis=1)
        return np.concatenate([np.floor(place * (size - sides + 1)), sides], axis=1).astype(np.int64)

    def _largest(self, size: tuple[int, int]) -> Numbers:
        height, width = size
        return np.rint([min(height, width * self.elongation), min(width, height * self.elongation)])


def keep_boxes(image: Tensor, boxes: Box) -> Tensor:
    """Images (B, 3, H, W) that are black outside of their boxes: top, left, height and width in pixels, (B, 4)."""
    rows, columns = (_inside(image.shape[2 + axis], boxes[:, axis], boxes[:, 2 + axis]) for axis in (0, 1))
    return image * on_device(rows[:, None, :, None], image) * on_device(columns[:, None, None, :], image)


def _inside(size: int, start: Box, length: Box) -> NDArray[np.uint8]:
    pixel = np.arange(size)
    return ((pixel >= start[:, None]) & (pixel < (start + length)[:, None])).astype(np.uint8)
