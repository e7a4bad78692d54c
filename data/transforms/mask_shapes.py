"""Shapes and textures of drawn masks, in the place of a face that is aligned to 112x112 pixels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from facelab.data.transforms.draws import Numbers

MIDDLE = 56.0
"""Column of the nose in an aligned face of 112 pixels."""

Shape = Literal["surgical", "cloth", "ffp2", "cup", "bandana"]
Texture = Literal["plain", "pleats", "stripes", "dots", "checks"]


@dataclass(frozen=True)
class Outline:
    """Edges of a mask, in pixels of a face that is aligned to 112.

    Attributes:
        nose: Row of the upper edge on the nose.
        fall: By how much that edge lies lower where the mask ends.
        power: Of the distance from the nose with which it falls: 1 is a roof, 2 an arch.
        half_width: Half the width at the upper edge.
        taper: By which part of that it is narrower at the chin.
        chin: Row of the lower edge in the middle.
        lift: By how much the lower edge lies higher at the sides.
        straps: Whether bands go to the ears.
    """

    nose: float
    fall: float
    power: float
    half_width: float
    taper: float
    chin: float
    lift: float
    straps: float = 1.0

    def values(self) -> list[float]:
        """All of them, in their order."""
        return [*vars(self).values()]


SHAPES: dict[Shape, Outline] = {
    "surgical": Outline(nose=64, fall=5, power=2, half_width=38, taper=0.30, chin=118, lift=10),
    "cloth": Outline(nose=66, fall=9, power=2, half_width=36, taper=0.50, chin=117, lift=20),
    "ffp2": Outline(nose=60, fall=17, power=1, half_width=36, taper=0.45, chin=118, lift=24),
    "cup": Outline(nose=62, fall=20, power=2, half_width=32, taper=0.60, chin=113, lift=18),
    "bandana": Outline(nose=68, fall=1, power=2, half_width=48, taper=0.0, chin=150, lift=0, straps=0),
}
TEXTURES: tuple[Texture, ...] = ("plain", "pleats", "stripes", "dots", "checks")

COLOURS: Numbers = np.array(
    [
        (150, 190, 215), (225, 232, 236), (235, 235, 235), (28, 28, 32), (95, 100, 108), (40, 60, 110),
        (140, 35, 45), (60, 110, 80), (205, 165, 175), (200, 185, 150),
    ],
    np.float64,
)  # fmt: skip
"""Surgical blue, two whites, black, grey, navy, red, green, rose, sand."""
