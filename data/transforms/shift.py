"""Move images by whole pixels."""

from typing import Annotated

import numpy as np
from pydantic import Field

from facelab.data.transforms.base import TRANSFORMS, Probability
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.geometric import Geometric
from facelab.data.transforms.resample import scale_and_shift


@TRANSFORMS.register("shift")
class Shift(Geometric):
    """Move the image by whole pixels; what comes in is black.

    Args:
        probability: Part of the images that are moved.
        pixels: Farthest move along each axis, either way.
    """

    changes_quality = False

    def __init__(self, probability: Probability = 0.5, pixels: Annotated[int, Field(ge=1)] = 4) -> None:
        super().__init__(probability)
        self.pixels = pixels

    def maps(self, size: tuple[int, int], draw: Draws) -> Numbers:
        """By how much each image moves."""
        places = 2 * self.pixels + 1
        pixels = np.floor(np.stack([draw("x"), draw("y")], axis=1) * places) - self.pixels
        # The picture spans 2 from border to border. Whole pixels fall on centres, where bilinear weights change
        # nothing.
        return scale_and_shift(np.ones_like(pixels), pixels * 2.0 / [size[1], size[0]])
