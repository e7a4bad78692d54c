"""The outlines that make a face: flat coloured polygons that lie on, before or behind a rounded head."""

from dataclasses import dataclass

import numpy as np

from facelab.data.synthetic.person import Floats, Person
from facelab.data.synthetic.photo import Photo

TURN = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
CIRCLE = np.column_stack([np.cos(TURN), np.sin(TURN)])
ALONG = np.linspace(-1.0, 1.0, 9)
ARCH = 1.0 - ALONG**2
RAMP = np.linspace(0.0, 1.0, len(ALONG))
ROUND = np.linspace(0.0, 2.0 * np.pi, 44, endpoint=False)
WHITE = np.array([236.0, 232.0, 226.0])
INK = np.array([22.0, 17.0, 16.0])
SIDES = (-1.0, 1.0)


@dataclass(frozen=True)
class Part:
    """One polygon, painted over those before it.

    Attributes:
        outline: x and y of its corners on an unturned face, (N, 2).
        colour: RGB 0..255, (3,).
        above: How far it stands before the surface of the head (or before the plane of the ears, if not ``attached``).
        attached: Whether it follows the rounding of the head.
    """

    outline: Floats
    colour: Floats
    above: float = 0.0
    attached: bool = True


def ellipse(x: float, y: float, width: float, height: float, tilt: float = 0.0) -> Floats:
    """Outline of an ellipse with half axes ``width`` and ``height``, (20, 2)."""
    outline = CIRCLE * (width, height)
    return placed(outline, x, y, tilt) if tilt else np.add(outline, (x, y))


def curve(x: Floats, y: Floats | float) -> Floats:
    """Points from their coordinates, (N, 2); a tenth of the time of `numpy.stack`, and there are many."""
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def placed(outline: Floats, x: float, y: float, tilt: float = 0.0, mirror: float = 1.0) -> Floats:
    """An outline tilted, mirrored where ``mirror`` is -1, and moved to (x, y)."""
    cosine, sine = np.cos(tilt), np.sin(tilt)
    turned = outline @ np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray(turned * (mirror, 1.0) + (x, y))


def band(upper: Floats, lower: Floats, x: Floats) -> Floats:
    """The area between two curves over the same ``x``."""
    return np.concatenate([curve(x, upper), curve(x, lower)[::-1]])


def head_outline(person: Person, grow: float = 0.0) -> Floats:
    """Outline of the head, (44, 2); ``grow`` widens it all round."""
    cosine, sine = np.cos(ROUND), np.sin(ROUND)
    below = np.clip(sine, 0.0, 1.0)
    narrowing = 1.0 - (1.0 - person.jaw) * below**1.5 * 0.75 + person.cheek * np.sin(2.0 * np.arcsin(below))
    squareness = np.sign(cosine) * np.abs(cosine) ** (0.75 + 0.3 * (1.0 - person.jaw))
    height = np.where(sine > 0, person.chin, person.head_height)
    return curve((person.head_width + grow) * squareness * narrowing, (height + grow) * sine)


def behind_head(person: Person, photo: Photo) -> list[Part]:
    """Shoulders, neck, hair at the back and ears."""
    skin, width = person.skin, person.head_width
    neck = np.array([(-0.5, 0.5), (0.5, 0.5), (0.56, 1.9), (-0.56, 1.9)]) * (width, 1.0)
    shoulders = np.array([(-0.6, 1.45), (0.6, 1.45), (1.6, 1.8), (1.9, 2.6), (-1.9, 2.6), (-1.6, 1.8)])
    back = head_outline(person, person.hair_volume)
    back = curve(back[:, 0] * (1.0 + person.hair_side), np.minimum(back[:, 1], max(person.hair_length, -0.2)))
    parts = [Part(back, person.hair * 0.75, -0.35, attached=False)] if person.hair_length > -0.45 else []
    parts += [Part(neck, skin * 0.72, -0.3, attached=False), Part(shoulders, photo.palette[0], -0.3, attached=False)]
    for side in SIDES:
        x = side * (width + person.ear_out)
        parts.append(Part(ellipse(x, 0.05, 0.1 + person.ear_out, person.ear_size), skin * 0.88, -0.1, attached=False))
    return parts


def skin_parts(person: Person, photo: Photo) -> list[Part]:
    """The head itself, beard, blush, bags under the eyes, creases, moles and freckles."""
    skin, outline = person.skin, head_outline(person)
    parts = [Part(outline, skin, 0.0, attached=False)]
    if person.beard > 0:
        lower = outline[outline[:, 1] > 0.12] * (1.0, 1.0)
        top = person.mouth_height + 0.2 * ARCH[::-1] - 0.12
        beard = np.concatenate([lower[np.argsort(-lower[:, 0])], curve(ALONG * person.head_width * 0.8, top)])
        parts.append(Part(beard, _mix(skin, person.hair, person.beard)))
    red = _mix(skin, np.array([196.0, 70.0, 70.0]), person.blush)
    for side in SIDES:
        eye = side * person.eye_spacing
        parts.append(Part(ellipse(side * 0.42, 0.3, 0.17, 0.12), red))
        parts.append(Part(ellipse(eye, person.eye_height + 0.05, person.eye_width, 0.11), skin * (1 - person.eye_bags)))
        parts.append(_crease(person, photo, side))
    for x, y, radius, darkness in person.marks.tolist():
        parts.append(Part(ellipse(x, y, radius, radius), skin * (1.0 - darkness)))
    return parts


def _crease(person: Person, photo: Photo, side: float) -> Part:
    start, end = person.eye_height + person.nose_length - 0.06, person.mouth_height
    y = start + (end - start) * RAMP
    x = person.nose_width + 0.06 + person.mouth_width * 0.6 * RAMP + 0.03 * photo.smile * ARCH
    outline = np.concatenate([curve(x, y), curve(x + 0.035 * ARCH, y)[::-1]]) * (side, 1.0)
    return Part(outline, person.skin * (1.0 - person.crease))


def eye_parts(person: Person, photo: Photo) -> list[Part]:
    """Both eyes with their lids, iris and pupil, and both brows."""
    parts = []
    openness = person.eye_open * photo.eyes_open * ARCH
    white = band(-openness, openness * 0.8, ALONG * person.eye_width)
    lash = band(-openness - 0.028, -openness, ALONG * person.eye_width * 1.06)
    for side in SIDES:
        centre = side * person.eye_spacing
        for outline, colour in ((white, WHITE), *_iris(person, photo, side), (lash, INK)):
            parts.append(Part(placed(outline, centre, person.eye_height, -person.eye_tilt, side), colour))
        parts.append(_brow(person, photo, side))
    return parts


def _iris(person: Person, photo: Photo, side: float) -> list[tuple[Floats, Floats]]:
    x = side * photo.gaze_x * person.eye_width * 0.35
    y = photo.gaze_y * person.eye_open * 0.4
    rings = []
    for radius, colour in ((person.iris, person.iris_colour), (person.iris * 0.45, INK)):
        circle = CIRCLE * radius + (x, y)
        lid = person.eye_open * photo.eyes_open * np.clip(1.0 - (circle[:, 0] / person.eye_width) ** 2, 0.0, None)
        rings.append((curve(circle[:, 0], np.clip(circle[:, 1], -lid, 0.8 * lid)), colour))
    return rings


def _brow(person: Person, photo: Photo, side: float) -> Part:
    taper = person.brow_thickness * (0.75 - 0.45 * ALONG) * 0.5 + 0.004
    arch = -person.brow_arch * ARCH
    outline = band(arch - taper, arch + taper, ALONG * person.brow_length)
    y = person.eye_height - person.brow_gap - 0.05 * photo.brow_lift
    colour = _mix(person.skin, person.hair * 0.8, person.brow_tone)
    tilt = -person.brow_tilt * 0.7 + 0.22 * photo.frown
    return Part(placed(outline, side * (person.eye_spacing + 0.02), y, tilt, side), colour, 0.04)


def nose_parts(person: Person, photo: Photo) -> list[Part]:
    """Bridge, shaded flank, tip, wings and nostrils; the tip stands out, so it moves when the head turns."""
    skin, tip = person.skin, person.eye_height + person.nose_length
    y = person.eye_height - 0.02 + (person.nose_length + 0.02) * RAMP
    half = person.nose_bridge + (person.nose_width * 0.8 - person.nose_bridge) * RAMP
    dark = -1.0 if photo.light_x > 0 else 1.0
    flank = np.concatenate([curve(dark * half * 1.5, y), curve(dark * half * 0.45, y)[::-1]])
    lit = np.concatenate([curve(half * 0.4, y), curve(-half * 0.4, y)[::-1]])
    parts = [
        Part(flank, skin * 0.8, person.nose_depth * 0.4),
        Part(lit, np.minimum(skin * 1.08, 255.0), person.nose_depth * 0.7),
        Part(ellipse(0.0, tip + 0.015, person.nose_width, 0.07), skin * 0.84, person.nose_depth * 0.7),
        Part(
            ellipse(0.0, tip - 0.035, person.nose_width * 0.72, 0.075),
            np.minimum(skin * 1.05, 255.0),
            person.nose_depth,
        ),
    ]
    for side in SIDES:
        x = side * person.nose_width * 0.5
        parts.append(
            Part(ellipse(x, tip + 0.04, person.nostril * 1.4, person.nostril), skin * 0.35, person.nose_depth * 0.75)
        )
    return parts


def mouth_parts(person: Person, photo: Photo) -> list[Part]:
    """Lips, the open mouth with teeth, and the moustache."""
    x = ALONG * person.mouth_width * (1.0 + 0.12 * photo.smile)
    middle = person.mouth_height + 0.09 * photo.smile * (ARCH - 0.5)
    gap = 0.13 * max(photo.mouth_open, 0.0) * ARCH
    bow = ARCH * (1.0 - person.lip_bow * np.exp(-((ALONG / 0.25) ** 2)))
    lip = _mix(person.skin * 0.85, np.array([172.0, 62.0, 70.0]), person.lip_red)
    parts = [
        Part(band(middle - person.upper_lip * bow - 0.012, middle + 0.01, x), lip * 0.88),
        Part(band(middle, middle + gap + person.lower_lip * ARCH + 0.012, x), lip),
        Part(band(middle - 0.008, middle + gap + 0.008, x * 0.93), INK + 24.0),
    ]
    if photo.mouth_open > 0.15:
        parts.append(Part(band(middle, middle + gap * 0.45, x * 0.8), WHITE))
    if person.moustache > 0:
        top = person.mouth_height - person.upper_lip - 0.02
        hair = band(top - 0.1 * ARCH - 0.02, np.full_like(ALONG, top), ALONG * person.mouth_width * 1.05)
        parts.append(Part(hair, _mix(person.skin, person.hair, 0.25 + 0.7 * person.moustache), 0.03))
    return parts


def hair_parts(person: Person, photo: Photo) -> list[Part]:
    """The hair over forehead and temples: between the outline of the head and the hairline."""
    outline = head_outline(person, person.hair_volume * 0.5)
    sides = person.eye_height + 0.25 * person.hair_side
    top = outline[(outline[:, 1] < sides)]
    top = top[np.argsort(top[:, 0])]
    x = np.linspace(1.0, -1.0, 13)
    parting = np.exp(-(((x - person.hair_parting) / 0.35) ** 2)) * 0.16
    line = person.hairline + photo.hair_shift + person.hair_slope * x - parting + (sides - person.hairline) * x**6
    line = np.clip(line, -person.head_height, None)
    return [Part(np.concatenate([top, curve(x * person.head_width * 0.97, line)]), person.hair, 0.04)]


def _mix(first: Floats, second: Floats, share: float) -> Floats:
    return first + (second - first) * min(max(share, 0.0), 1.0)
