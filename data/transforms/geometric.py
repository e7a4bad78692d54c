"""What crop, shift and affine have in common: images and landmarks go by one map."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.transforms.base import Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.resample import resample, resample_points


class Geometric(Transform):
    """A transform that samples some images by affine maps, and moves their landmarks along.

    Args:
        probability: Part of the images that are moved.
    """

    stage = Stage.GEOMETRY
    changes_quality = True  # a subclass that loses nothing says otherwise
    moves_keypoints = True

    def __init__(self, probability: Probability) -> None:
        self.probability = probability

    @abstractmethod
    def maps(self, size: tuple[int, int], draw: Draws) -> Numbers:
        """The map of each image of the batch as `resample` takes them, chosen or not, (B, 2, 3).

        Args:
            size: Height and width of the images.
            draw: The random numbers of these images.
        """

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Move some images."""
        return resample(image, *self._chosen((image.shape[2], image.shape[3]), draw))

    def keypoints(self, keypoints: Tensor, size: tuple[int, int], draw: Draws) -> Tensor:
        """Move the points of the same images."""
        return resample_points(keypoints, size, *self._chosen(size, draw))

    def _chosen(self, size: tuple[int, int], draw: Draws) -> tuple[NDArray[np.int64], Numbers]:
        rows = draw.chosen(self.probability)
        return rows, self.maps(size, draw)[rows]
