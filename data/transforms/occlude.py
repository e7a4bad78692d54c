"""Put something in front of faces, and know where."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.mask_shapes import MIDDLE, TEXTURES
from facelab.data.transforms.objects import NUMBERS, OUTLINES, Kind
from facelab.data.transforms.patterns import patterns
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows

SKIN = np.array([(247, 214, 190), (232, 190, 158), (205, 150, 112), (160, 108, 76), (112, 72, 50), (70, 46, 36)])
"""Colours of hands, 0..255."""
DARKEST, LIGHTEST = 8, 70
"""Grey values of sunglasses."""


@TRANSFORMS.register("occlude")
class Occlude(Transform):
    """Put a drawn object in front of aligned faces: a rectangle, an ellipse, sunglasses, a hand, or a scarf.

    Chance chooses the object, its place, size, colours and texture. What the face wears or what touches it lies where
    aligned faces have eyes, nose and mouth. Edges are sharp, so that a pixel is either covered or as it was.

    Args:
        probability: Part of the images that get an object.
        kinds: From which to choose; empty for all.
    """

    stage = Stage.FACE
    changes_quality = True
    moves_keypoints = False
    occludes = True

    def __init__(self, probability: Probability = 0.5, kinds: tuple[Kind, ...] = ()) -> None:
        self.probability = probability
        self.kinds: tuple[Kind, ...] = kinds or tuple(OUTLINES)

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Put objects in front of some images."""
        rows = draw.chosen(self.probability)
        if not len(rows):
            return image
        covered = self._covered(image, draw, rows)
        return put_rows(image, rows, torch.where(covered, self._colour(image, draw, rows), take_rows(image, rows)))

    def occluded(self, image: Tensor, draw: Draws) -> Tensor:
        """Where these objects lie."""
        rows = draw.chosen(self.probability)
        covered = torch.zeros_like(image[:, :1], dtype=torch.bool)
        return (
            covered.index_copy_(0, on_device(rows, image), self._covered(image, draw, rows)) if len(rows) else covered
        )

    def _kinds(self, draw: Draws, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the kinds each image gets, (R,)."""
        return (draw("kind")[rows] * len(self.kinds)).astype(np.int64)

    def _covered(self, image: Tensor, draw: Draws, rows: NDArray[np.int64]) -> Tensor:
        """What is covered, bool, (R, 1, H, W)."""
        x, y = _face(image)
        chosen, numbers = self._kinds(draw, rows), draw("outline", NUMBERS)[rows].astype(np.float32)
        # Rows of one kind together: each image is computed once, and put where it belongs.
        parts = [np.flatnonzero(chosen == kind) for kind in range(len(self.kinds))]
        covered = [
            OUTLINES[kind](x, y, on_device(numbers[own], image)).expand(-1, 1, *x.shape[2:])
            for kind, own in zip(self.kinds, parts, strict=True)
            if len(own)
        ]
        order = np.argsort(np.concatenate(parts))
        return torch.cat(covered).index_select(0, on_device(order, image))

    def _colour(self, image: Tensor, draw: Draws, rows: NDArray[np.int64]) -> Tensor:
        """Colour of each pixel of the objects, uint8, (R, 3, H, W)."""
        x, y = _face(image)
        first, second = (on_device(colours.astype(np.float32), image) for colours in self._colours(draw, rows))
        ways = np.stack([4 + 10 * draw("period")[rows], np.pi * draw("turn")[rows]], axis=1).astype(np.float32)
        period, turn = on_device(ways, image)[:, :, None, None, None].unbind(1)
        made = patterns(x - MIDDLE, y, period, turn)
        wanted = torch.stack([made[texture].expand(len(rows), 1, *x.shape[2:]) for texture in TEXTURES], dim=1)
        texture = on_device((draw("texture")[rows] * len(TEXTURES)).astype(np.int64), image)
        amount = wanted[torch.arange(len(rows), device=image.device), texture]
        return as_pixels(first[:, :, None, None] + (second - first)[:, :, None, None] * amount)

    def _colours(self, draw: Draws, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The two colours of each texture, (R, 3) each: of a hand two shades of skin, of sunglasses two dark greys."""
        kinds = np.array(self.kinds)[self._kinds(draw, rows)]
        pair = 255 * draw("colours", 6)[rows].reshape(-1, 2, 3)
        grey = DARKEST + (LIGHTEST - DARKEST) * draw("grey", 2)[rows][:, :, None]
        skin = SKIN[(draw("skin")[rows] * len(SKIN)).astype(np.int64)][:, None] * [[1.0], [0.92]]
        pair = np.where((kinds == "hand")[:, None, None], skin, pair)
        pair = np.where((kinds == "sunglasses")[:, None, None], grey, pair)
        return pair[:, 0], pair[:, 1]


def _face(image: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row of each pixel in an aligned face of 112 pixels, (1, 1, 1, W) and (1, 1, H, 1) as (1, 1, H, W)."""
    height, width = image.shape[2:]
    column, row = (torch.arange(side, device=image.device, dtype=torch.float32) for side in (width, height))
    x, y = ((place + 0.5) * (112 / width) - 0.5 for place in (column, row))
    return x.expand(1, 1, height, width), y[:, None].expand(1, 1, height, width)
