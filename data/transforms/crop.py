"""Cut out a part of an image and enlarge it."""

from typing import Annotated

import numpy as np
from pydantic import Field

from facelab.data.transforms.base import TRANSFORMS, Probability
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.geometric import Geometric
from facelab.data.transforms.resample import scale_and_shift


@TRANSFORMS.register("crop")
class Crop(Geometric):
    """Cut out a part with the image's proportions, anywhere inside, and enlarge it to the full size (bilinear).

    Args:
        probability: Part of the images that are cropped.
        smallest: Area of the smallest crop, as a part of the image; areas up to 1 are equally likely.
    """

    changes_quality = True  # a crop is enlarged

    def __init__(self, probability: Probability = 0.2, smallest: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5) -> None:
        super().__init__(probability)
        self.smallest = smallest

    def maps(self, size: tuple[int, int], draw: Draws) -> Numbers:
        """Where in the image each crop lies."""
        side = np.sqrt(self.smallest + (1.0 - self.smallest) * draw("area"))[:, None]
        place = 2.0 * np.stack([draw("x"), draw("y")], axis=1) - 1.0
        # Samples stay between the centres of the outermost pixels: beyond them they would be mixed with black.
        room = np.maximum(1.0 - side - (1.0 - side) / np.array([size[1], size[0]]), 0.0)
        return scale_and_shift(side.repeat(2, axis=1), place * room)
