"""How a synthetic person is photographed: everything that changes from one image of a person to the next."""

from dataclasses import dataclass

import numpy as np

from facelab.data.synthetic.person import PHOTO_STREAM, Floats, draw, stream, trait

OCCLUSIONS = ("glasses", "sunglasses", "cap", "mask", "strand", "hand")
OCCLUSION_ODDS = np.array([0.1, 0.02, 0.06, 0.02, 0.06, 0.03])


@dataclass(frozen=True)
class Photo:
    """The conditions of one image; angles in radians, the rest relative.

    Attributes:
        occlusions: Which of `OCCLUSIONS` are in the picture.
        palette: Random colours 0..255 for backdrop, clothes and occluders, (8, 3).
        clutter: Random numbers 0..1 that place the backdrop's shapes, the strand and the hand, (24,).
    """

    occlusions: frozenset[str]
    palette: Floats
    clutter: Floats
    yaw: float = trait(-0.3, 0.3)
    pitch: float = trait(-0.15, 0.15)
    roll: float = trait(-0.08, 0.08)
    shift_x: float = trait(-0.02, 0.02)
    shift_y: float = trait(-0.02, 0.02)
    zoom: float = trait(0.96, 1.04)
    smile: float = trait(-0.5, 1.0)
    mouth_open: float = trait(-1.0, 0.8)  # closed below 0
    brow_lift: float = trait(-0.5, 1.0)
    frown: float = trait(-0.6, 1.0)
    eyes_open: float = trait(0.6, 1.15)
    gaze_x: float = trait(-1.0, 1.0)
    gaze_y: float = trait(-0.6, 0.6)
    hair_shift: float = trait(-0.03, 0.03)
    light_x: float = trait(-1.0, 1.0)
    light_y: float = trait(-1.0, 0.4)
    ambient: float = trait(0.45, 0.9)
    exposure: float = trait(0.7, 1.2)
    warmth: float = trait(-0.12, 0.12)
    tint: float = trait(-0.05, 0.05)
    contrast: float = trait(0.8, 1.2)
    shadow_edge: float = trait(-2.0, 0.4)  # none below 0, as in most photos; so too softness and resolution
    shadow_angle: float = trait(0.0, 6.2832)
    shadow_depth: float = trait(0.25, 0.5)
    saturation: float = trait(0.6, 1.1)
    softness: float = trait(-2.0, 0.5)
    resolution: float = trait(-6.0, 1.0)
    grain: float = trait(0.0, 4.0)


def draw_photo(seed: int, identity: int, number: int) -> Photo:
    """The conditions of photo ``number`` of a person.

    Args:
        seed: Population, 0 or more.
        identity: Number of the person, 0 or more.
        number: Number of the photo, 0 or more.
    """
    random = stream(seed, PHOTO_STREAM, identity, number)
    values = draw(Photo, random)
    present = random.random(len(OCCLUSIONS)) < OCCLUSION_ODDS
    names = frozenset(name for name, here in zip(OCCLUSIONS, present.tolist(), strict=True) if here)
    return Photo(names, random.uniform(15, 240, (8, 3)), random.random(24), *values)
