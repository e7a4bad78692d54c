"""Turn, scale and move a face in its picture."""

from typing import Annotated

import numpy as np
from pydantic import Field

from facelab.data.transforms.base import TRANSFORMS, Probability
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.geometric import Geometric
from facelab.errors import ConfigError

Scale = Annotated[float, Field(gt=0.0, le=10.0)]


@TRANSFORMS.register("affine")
class Affine(Geometric):
    """Turn the picture about its middle, scale it and move it; what comes in is black.

    This is CVLface's "gridsample" augmentation, with which KP-RPE was trained (Kim et al., CVPR 2024,
    arXiv:2403.14852); its mirroring is the transform ``flip``. Its landmarks go where its ``theta`` sends them, and
    ours too. Its pictures are made by OpenCV, whose pixel centres are whole numbers, so that they lie up to a pixel
    beside its landmarks; ours do not.

    Args:
        probability: Part of the images that are changed.
        scale: Least and greatest size of the face, as a multiple of what it was; evenly.
        turned: Part of the changed images that are turned too.
        angle: Farthest turn either way, in degrees; evenly.
        margin: How much of each border may leave the picture or black come in, at most, beside what the scale brings
            in or out, as a part of the scaled side; drawn evenly for each image.

    Raises:
        ConfigError: If the scales are in the wrong order.
    """

    changes_quality = True  # a larger face is interpolated, and parts may be missing

    def __init__(
        self,
        probability: Probability = 1.0,
        scale: tuple[Scale, Scale] = (0.8, 1.2),
        turned: Probability = 0.2,
        angle: Annotated[float, Field(ge=0.0, le=180.0)] = 20.0,
        margin: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1,
    ) -> None:
        super().__init__(probability)
        if scale[0] > scale[1]:
            raise ConfigError(f"affine scale is [{scale[0]:g}, {scale[1]:g}]; write the lesser one first.")
        self.scale = scale
        self.turned, self.angle, self.margin = turned, angle, margin

    def maps(self, size: tuple[int, int], draw: Draws) -> Numbers:
        """Where each new picture lies in the old one."""
        low, high = self.scale
        angle = self.angle * (2.0 * draw("angle") - 1.0) * (draw("turned") < self.turned)
        place = 2.0 * np.stack([draw("x"), draw("y")], axis=1) - 1.0
        return affine_maps(low + (high - low) * draw("scale"), angle, place, self.margin * draw("margin"), size)


def affine_maps(scale: Numbers, angle: Numbers, place: Numbers, margin: Numbers, size: tuple[int, int]) -> Numbers:
    """Maps as `resample` takes them, (B, 2, 3).

    Args:
        scale: Size of the face, as a multiple of what it was, (B,).
        angle: Turn in degrees, counter-clockwise in the picture, (B,).
        place: How much of the possible move is made along x and y, -1..1, (B, 2).
        margin: See `Affine`, (B,).
        size: Height and width of the images.
    """
    turn, ratio = np.deg2rad(angle), size[0] / size[1]
    maps = np.zeros((len(scale), 2, 3))
    # Between -1 and 1 both sides count as equally long, so that a turn must know their ratio.
    maps[:, 0, 0] = maps[:, 1, 1] = np.cos(turn) / scale
    maps[:, 0, 1] = -np.sin(turn) / scale * ratio
    maps[:, 1, 0] = np.sin(turn) / scale / ratio
    # A face of scale s, less its margin, has s (1 - margin) - 1 of room: positive if it is larger than the picture.
    room = scale * (1.0 - margin) - 1.0
    maps[:, :, 2] = -np.einsum("bij,bj->bi", maps[:, :, :2], place * room[:, None])
    return maps
