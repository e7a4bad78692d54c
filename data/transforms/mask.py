"""Put a face mask on faces."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.alignment.alignment import Points, template
from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws, Numbers
from facelab.data.transforms.mask_shapes import COLOURS, MIDDLE, SHAPES, TEXTURES, Shape, Texture
from facelab.data.transforms.patterns import patterns
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows
from facelab.errors import ConfigError

STRAP = 0.9  # pixels; half the width of a band


@TRANSFORMS.register("mask")
class Mask(Transform):
    """Put a drawn face mask on aligned faces; chance chooses shape, texture, colours and the exact place.

    It covers nose, mouth and chin where an aligned face has them; `facelab data mask` takes landmarks too. Its colour
    follows the brightness of the picture. It needs no model of a head and no picture of a mask, unlike FMA-3D (Wang et
    al., FaceX-Zoo, ACM MM 2021, arXiv:2101.04407), with which FaceX-Zoo's masked faces were made.

    Args:
        probability: Part of the images that get a mask.
        shapes: From which to choose; empty for all.
        textures: From which to choose; empty for all.
        jitter: How far the edges of the mask may lie from their usual place, in pixels of a face of 112.
    """

    stage = Stage.FACE
    changes_quality = True  # half of the face is gone
    moves_keypoints = False
    occludes = True

    def __init__(
        self,
        probability: Probability = 0.5,
        shapes: tuple[Shape, ...] = (),
        textures: tuple[Texture, ...] = (),
        jitter: float = 3.0,
    ) -> None:
        if not 0.0 <= jitter <= 20.0:
            raise ConfigError(f"mask jitter is {jitter:g}, but must lie in [0, 20].")
        self.probability = probability
        self.shapes: tuple[Shape, ...] = shapes or tuple(SHAPES)
        self.textures: tuple[Texture, ...] = textures or TEXTURES
        self.jitter = jitter

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Put masks on some images, where aligned faces have nose and mouth."""
        rows = draw.chosen(self.probability)
        if not len(rows):
            return image
        return put_rows(image, rows, self.worn(take_rows(image, rows), draw, rows))

    def occluded(self, image: Tensor, draw: Draws) -> Tensor:
        """Where these masks lie; a pixel at their edge counts if they cover most of it."""
        rows = draw.chosen(self.probability)
        covered = torch.zeros_like(image[:, :1], dtype=torch.bool)
        if not len(rows):
            return covered
        alpha, _, _ = self._coverage(_faces(take_rows(image, rows), None), draw, rows)
        return covered.index_copy_(0, on_device(rows, image), alpha >= 0.5)

    def worn(self, image: Tensor, draw: Draws, rows: NDArray[np.int64], landmarks: Points | None = None) -> Tensor:
        """Images with masks.

        Args:
            image: RGB, uint8, (R, 3, H, W).
            draw: The random numbers.
            rows: For which rows of the batch they are, (R,).
            landmarks: Five points of each face in pixels, (R, 5, 2); by default those of aligned faces.
        """
        face = _faces(image, landmarks)
        alpha, across, down = self._coverage(face, draw, rows)
        colour = self._colour(face, across, down, draw, rows)
        # A mask in a dark picture is dark: full light is a mean of 128.
        light = 0.55 + 0.45 * (image.float().mean(dim=(1, 2, 3), keepdim=True) / 128).clamp(0.2, 1.5)
        return as_pixels(image.float() * (1 - alpha) + colour * light * alpha)

    def _coverage(self, face: Tensor, draw: Draws, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """What part of a pixel is covered, and where on the mask it is: -1..1 across, 0..1 down; each (R, 1, H, W)."""
        outlines = np.array([SHAPES[shape].values() for shape in self.shapes])
        chosen = outlines[(draw("shape")[rows] * len(outlines)).astype(np.int64)]
        moved = self.jitter * (2.0 * draw("place", 4)[rows] - 1.0)
        chosen[:, 0] += moved[:, 0]
        chosen[:, 3] += moved[:, 1] / 2
        chosen[:, 5] += moved[:, 2]
        nose, fall, power, width, taper, chin, lift, straps = _numbers(chosen, face)
        x = face[:, :1] - MIDDLE - _numbers(moved[:, 3:] / 3, face)[0]
        y = face[:, 1:2]
        down = ((y - nose) / (chin - nose)).clamp(0, 1)
        side = width * (1 - taper * down.square())
        across = (x / side).clamp(-1.5, 1.5)
        top = nose + fall * (x / width).abs() ** power
        bottom = chin - lift * across.square()
        inside = torch.minimum(torch.minimum(y - top, bottom - y), side - x.abs())
        # Bands rise from where the mask ends; the lower one more, as both go to the ear.
        below, beyond = y - (nose + fall), x.abs() - width
        bands = torch.minimum((below - 2 + 0.5 * beyond).abs(), (below - 22 + 0.9 * beyond).abs())
        band = torch.where((x.abs() > side - 1) & (straps > 0), STRAP - bands, -torch.inf)
        # A pixel is as large as it is in the picture, whatever the face's size.
        edge = _spacing(face)
        return (torch.maximum(inside, band) / edge + 0.5).clamp(0, 1), across, down

    def _colour(self, face: Tensor, across: Tensor, down: Tensor, draw: Draws, rows: NDArray[np.int64]) -> Tensor:
        """Colour of each pixel of the mask, 0..255, (R, 3, H, W)."""
        palette = COLOURS[(draw("colours", 2)[rows] * len(COLOURS)).astype(np.int64)]
        palette = palette + 30.0 * (draw("tint", 3)[rows][:, None] - 0.5)
        first, second = (on_device(palette[:, part].astype(np.float32), face)[:, :, None, None] for part in (0, 1))
        ways = [4 + 5 * draw("period")[rows], np.pi * draw("turn")[rows], 0.3 + 0.7 * draw("strength")[rows]]
        period, turn, strength = _numbers(np.stack(ways, axis=1), face)
        amount = self._pattern(face, period, turn, draw("texture")[rows])
        mixed = first + (second - first) * amount * strength
        # Round as a face is: darker towards its sides and below.
        return mixed * (1.02 - 0.28 * across.square() - 0.12 * down)

    def _pattern(self, face: Tensor, period: Tensor, turn: Tensor, number: Numbers) -> Tensor:
        """How much of the second colour each pixel has, 0..1, (R, 1, H, W)."""
        x, y = face[:, :1] - MIDDLE, face[:, 1:2]
        made = patterns(x, y, period, turn)
        wanted = torch.stack([made[texture] for texture in self.textures], dim=1)
        index = on_device((number * len(self.textures)).astype(np.int64), face)
        return wanted[torch.arange(len(wanted), device=face.device), index]


def _faces(image: Tensor, landmarks: Points | None) -> Tensor:
    """Where each pixel lies in an aligned face of 112 pixels: x and y, (R, 2, H, W)."""
    height, width = image.shape[2:]
    target = template(112)
    if landmarks is None:
        landmarks = np.tile((target + 0.5) * (width / 112) - 0.5, (len(image), 1, 1))
    known = np.concatenate([landmarks, np.ones((len(landmarks), 5, 1))], axis=2)
    # An affine map follows the height of a face and a turned head too, which a similarity does not.
    maps = on_device((np.linalg.pinv(known) @ target).astype(np.float32), image)
    row, column = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    place = torch.stack([column, row, torch.ones_like(row)]).float()
    return torch.einsum("rik,ihw->rkhw", maps, place)


def _spacing(face: Tensor) -> Tensor:
    """Pixels of an aligned face to a pixel of the picture, (R, 1, 1, 1)."""
    right, down = face[:, :, 0, 1] - face[:, :, 0, 0], face[:, :, 1, 0] - face[:, :, 0, 0]
    area = (right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]).abs()
    return area.sqrt().clamp_min(1e-3)[:, None, None, None]


def _numbers(values: Numbers, image: Tensor) -> tuple[Tensor, ...]:
    """Columns of (R, N), each as (R, 1, 1, 1) where the images are."""
    return on_device(values.astype(np.float32), image)[:, :, None, None, None].unbind(1)
