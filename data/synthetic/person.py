"""Who is drawn: the traits that make one synthetic person differ from another, in every photo the same."""

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PERSON_STREAM, PHOTO_STREAM, NOISE_STREAM, PAIR_STREAM = range(4)  # streams of one seed never share random numbers

SKIN_TONES = np.array([[78, 50, 38], [122, 80, 58], [170, 118, 88], [208, 158, 126], [236, 196, 170]], np.float64)
HAIR_TONES = np.array([[24, 20, 22], [70, 44, 30], [122, 78, 44], [196, 150, 82], [150, 62, 34], [158, 154, 152]])
IRIS_TONES = np.array([[44, 28, 20], [104, 66, 34], [104, 116, 60], [90, 132, 164], [130, 142, 150]], np.float64)


def stream(seed: int, *numbers: int) -> np.random.Generator:
    """The random numbers of one thing (a person, a photo …), whatever was drawn before and on whichever process."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *numbers))))


def trait(low: float, high: float) -> Any:
    """A dataclass field that is drawn uniformly from ``low`` to ``high``."""
    return field(metadata={"range": (low, high), "extreme": False})


def shape(low: float, high: float) -> Any:
    """A dataclass field between ``low`` and ``high`` that prefers the ends, so that two persons seldom look alike."""
    return field(metadata={"range": (low, high), "extreme": True})


def draw(cls: type, random: np.random.Generator) -> list[float]:
    """Values for all `trait` and `shape` fields of a dataclass, in order."""
    (low, high), extreme = _recipe(cls)
    share = random.random(len(low))
    # The arcsine distribution, which is densest at both ends.
    share = np.where(extreme, 0.5 - 0.5 * np.cos(np.pi * share), share)
    values: list[float] = (low + (high - low) * share).tolist()
    return values


@cache
def _recipe(cls: type) -> tuple[Floats, NDArray[np.bool_]]:
    """Lower and upper ends of the drawn fields (2, N), and which of them prefer the ends (N,)."""
    drawn = [item.metadata for item in fields(cls) if "range" in item.metadata]
    return np.array([item["range"] for item in drawn]).T, np.array([item["extreme"] for item in drawn])


def blend(tones: NDArray[Any], position: float) -> Floats:
    """Colour at ``position`` 0..1 along a row of colours (K, 3), linear in between."""
    place = position * (len(tones) - 1)
    left = min(int(place), len(tones) - 2)
    colour: Floats = tones[left] + (place - left) * (tones[left + 1] - tones[left])
    return colour


@dataclass(frozen=True)
class Person:
    """One identity.

    Lengths are in units of about half a head: x to the right, y downward, z toward the camera, origin between eyes and
    mouth. Angles are in radians, positions in a row of tones are 0..1.
    """

    marks: Floats  # moles and freckles, (K, 4): x, y, radius, darkness 0..1
    head_width: float = shape(0.64, 0.98)
    head_height: float = shape(0.98, 1.22)
    jaw: float = shape(0.45, 1.0)
    chin: float = shape(0.9, 1.22)
    cheek: float = shape(-0.1, 0.14)
    eye_spacing: float = shape(0.27, 0.46)
    eye_height: float = shape(-0.3, -0.04)
    eye_width: float = shape(0.1, 0.23)
    eye_open: float = shape(0.04, 0.13)
    eye_tilt: float = shape(-0.3, 0.35)
    iris: float = shape(0.045, 0.09)
    iris_tone: float = trait(0.0, 1.0)
    brow_gap: float = shape(0.07, 0.27)
    brow_length: float = shape(0.12, 0.28)
    brow_thickness: float = shape(0.012, 0.09)
    brow_tilt: float = shape(-0.35, 0.35)
    brow_arch: float = shape(-0.02, 0.1)
    brow_tone: float = shape(0.35, 0.95)
    nose_length: float = shape(0.28, 0.6)
    nose_width: float = shape(0.07, 0.24)
    nose_bridge: float = shape(0.025, 0.075)
    nose_depth: float = shape(0.12, 0.42)
    nostril: float = shape(0.015, 0.045)
    mouth_gap: float = shape(0.16, 0.36)
    mouth_width: float = shape(0.14, 0.4)
    upper_lip: float = shape(0.015, 0.1)
    lower_lip: float = shape(0.025, 0.13)
    lip_bow: float = shape(0.0, 0.5)
    lip_red: float = shape(0.1, 1.0)
    hairline: float = shape(-0.98, -0.5)
    hair_parting: float = shape(-0.6, 0.6)
    hair_slope: float = shape(-0.22, 0.22)
    hair_volume: float = shape(0.02, 0.26)
    hair_length: float = shape(-0.7, 1.5)
    hair_side: float = shape(0.0, 0.28)
    hair_tone: float = trait(0.0, 1.0)
    skin_tone: float = trait(0.0, 1.0)
    undertone: float = trait(-1.0, 1.0)
    ear_size: float = shape(0.08, 0.25)
    ear_out: float = shape(-0.02, 0.12)
    eye_bags: float = shape(0.0, 0.2)
    crease: float = shape(0.0, 0.24)
    blush: float = shape(0.0, 0.25)
    beard: float = shape(-1.2, 0.75)  # none below 0, as most have
    moustache: float = shape(-1.6, 0.8)  # none below 0

    @property
    def skin(self) -> Floats:
        """RGB of the skin in white light, 0..255, (3,)."""
        under = np.array([1.0 + 0.05 * self.undertone, 1.0, 1.0 - 0.1 * self.undertone])
        return np.asarray(blend(SKIN_TONES, self.skin_tone) * under)

    @property
    def hair(self) -> Floats:
        """RGB of the hair in white light, 0..255, (3,)."""
        return blend(HAIR_TONES, self.hair_tone)

    @property
    def iris_colour(self) -> Floats:
        """RGB of the iris in white light, 0..255, (3,)."""
        return blend(IRIS_TONES, self.iris_tone)

    @property
    def mouth_height(self) -> float:
        """Where the closed mouth is, in y."""
        return self.eye_height + self.nose_length + self.mouth_gap


def draw_person(seed: int, identity: int) -> Person:
    """The person with number ``identity`` of the population ``seed``.

    Args:
        seed: Population, 0 or more.
        identity: Number of the person, 0 or more.
    """
    random = stream(seed, PERSON_STREAM, identity)
    return Person(_draw_marks(random), *draw(Person, random))


def _draw_marks(random: np.random.Generator) -> Floats:
    moles, freckles = int(random.integers(0, 5)), int(random.integers(12, 40)) * int(random.random() < 0.3)
    mole = random.uniform((-0.6, -0.6, 0.018, 0.45), (0.6, 0.95, 0.045, 0.8), (moles, 4))
    freckle = random.uniform((-0.5, -0.05, 0.008, 0.12), (0.5, 0.4, 0.016, 0.35), (freckles, 4))
    return np.concatenate([mole, freckle])
