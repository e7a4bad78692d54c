"""The faces that an exported model is calibrated and checked with, and their quality scores."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.adapter.base import AdaptedBackbone
from facelab.data.base import ImageSet
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import DataError
from facelab.model.face_model import FaceModel
from facelab.model.given_images import GivenImages

Pixels = NDArray[np.uint8]
PER_PERSON = 4
MOST_WIDTHS = 3.0  # of a gate, on both sides of its threshold


@dataclass(frozen=True)
class Faces:
    """Aligned faces in the size that a network takes.

    Attributes:
        pixels: RGB, (N, H, W, 3).
        quality: Scores (N,) if the network takes any.
        what: Where they come from, for the user.
    """

    pixels: Pixels
    quality: NDArray[np.float32] | None
    what: str

    def __len__(self) -> int:
        """N."""
        return len(self.pixels)

    def part(self, rows: slice) -> "Faces":
        """Some of them."""
        return Faces(self.pixels[rows], None if self.quality is None else self.quality[rows], self.what)


def open_faces(model: FaceModel, source: ImageSet | None, what: str, count: int) -> Faces:
    """Some faces for a model.

    Args:
        model: Whose input they are for.
        source: Where they come from, spread over the whole of it; None for drawn faces.
        what: What the user calls it.
        count: How many, if there are so many.

    Raises:
        DataError: If there are none, or one cannot be read or is no aligned face.
    """
    drawn = source is None
    if source is None:
        side = max(*model.input_spec.aligned, 16)
        source = SyntheticFaces(-(-count // PER_PERSON), PER_PERSON, size=side, split="test")
    if not len(source):
        raise DataError(f"'{what}' has no face to calibrate or check the exported model with.")
    rows = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)).tolist()
    # Drawn faces are squares, whatever the network takes.
    images = [source.read(row) for row in rows]
    given = GivenImages(images, model.input_spec, model.name, resize=True, any_photo=drawn)
    pixels = np.stack([given.read(row) for row in range(len(given))])
    return Faces(pixels, _spread_scores(model, len(pixels)), what)


def _spread_scores(model: FaceModel, count: int) -> NDArray[np.float32] | None:
    """Scores from well below to well above the threshold of a model's gate, in turn; None without one."""
    network = model.network
    if not isinstance(network, AdaptedBackbone) or network.gate is None:
        return None
    gate, card = network.gate, network.gate.scorer
    # The golden ratio's multiples: neighbours differ, and any first few cover the range.
    steps = torch.frac(torch.arange(count) * 0.6180339887) * 2 - 1
    scores = (gate.tau.cpu() + MOST_WIDTHS * gate.temperature.cpu() * steps).numpy().astype(np.float32)
    return scores if card is None else np.clip(scores, card.low, card.high).astype(np.float32)
