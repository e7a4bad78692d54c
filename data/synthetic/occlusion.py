"""What hides parts of a synthetic face: glasses, cap, mask, a strand of hair, a hand."""

from collections.abc import Callable

import numpy as np

from facelab.data.synthetic.person import Floats, Person
from facelab.data.synthetic.photo import OCCLUSIONS, Photo
from facelab.data.synthetic.shapes import ALONG, ARCH, INK, SIDES, Part, band, curve, ellipse, head_outline


def occluding_parts(person: Person, photo: Photo) -> list[Part]:
    """The polygons of all occlusions in this photo, in a fixed order."""
    parts = []
    for name in OCCLUSIONS:
        if name in photo.occlusions:
            parts += DRAW[name](person, photo)
    return parts


def _glasses(person: Person, photo: Photo) -> list[Part]:
    frame = photo.palette[1] * 0.5
    thickness = 0.02 + 0.02 * photo.clutter[0]
    width, height = 0.19 + 0.06 * photo.clutter[1], 0.13 + 0.08 * photo.clutter[2]
    parts = []
    for side in SIDES:
        outer = ellipse(side * max(person.eye_spacing, width), person.eye_height + 0.02, width, height)
        inner = ellipse(
            side * max(person.eye_spacing, width), person.eye_height + 0.02, width - thickness, height - thickness
        )
        # A ring as one polygon with a slit: along the outer edge and back along the inner one, so that the eye shows.
        parts.append(Part(np.concatenate([outer, outer[:1], inner[:1], inner[:0:-1], inner[:1]]), frame, 0.08))
    bridge = _bar(person.eye_height, thickness, 0.1)
    return [*parts, Part(bridge, frame, 0.15)]


def _bar(y: float, thickness: float, reach: float) -> Floats:
    return band(np.full(9, y - thickness / 2), np.full(9, y + thickness / 2), ALONG * reach)


def _sunglasses(person: Person, photo: Photo) -> list[Part]:
    width, height = 0.2 + 0.05 * photo.clutter[1], 0.13 + 0.06 * photo.clutter[2]
    lenses = [
        Part(ellipse(side * max(person.eye_spacing, width), person.eye_height + 0.02, width, height), INK + 15.0, 0.08)
        for side in SIDES
    ]
    return [*lenses, Part(_bar(person.eye_height, 0.04, 0.5), INK, 0.1)]


def _cap(person: Person, photo: Photo) -> list[Part]:
    outline = head_outline(person, person.hair_volume * 0.5 + 0.05)
    brim = -0.5 - 0.25 * photo.clutter[3]
    crown = outline[outline[:, 1] < brim + 0.05]
    crown = crown[np.argsort(crown[:, 0])]
    x = ALONG * (person.head_width + 0.12)
    shade = band(brim - 0.08 - 0.1 * ARCH, np.full(9, brim) + 0.12 * ARCH, x)
    return [Part(crown, photo.palette[2], 0.08), Part(shade, photo.palette[2] * 0.7, 0.3)]


def _mask(person: Person, photo: Photo) -> list[Part]:
    outline = head_outline(person, 0.01)
    top = person.eye_height + 0.62 * person.nose_length
    lower = outline[outline[:, 1] > top + 0.1]
    lower = lower[np.argsort(-lower[:, 0])]
    edge = curve(ALONG * person.head_width * 0.9, top + 0.16 * ALONG**2)
    return [Part(np.concatenate([lower, edge]), 0.5 * photo.palette[3] + 120.0, 0.1)]


def _strand(person: Person, photo: Photo) -> list[Part]:
    start, sway = 1.6 * photo.clutter[4] - 0.8, 0.5 * (photo.clutter[5] - 0.5)
    y = np.linspace(-1.0, -0.3 + 1.1 * photo.clutter[6], 9)
    x = start * person.head_width + sway * (y + 1.0) + 0.05 * np.sin(6.0 * y)
    width = (0.03 + 0.06 * photo.clutter[7]) * np.linspace(1.0, 0.2, 9)
    outline = np.concatenate([curve(x - width, y), curve(x + width, y)[::-1]])
    return [Part(outline, person.hair * 0.9, 0.1)]


def _hand(person: Person, photo: Photo) -> list[Part]:
    side = -1.0 if photo.clutter[8] < 0.5 else 1.0
    x, y, tilt = side * (0.45 + 0.4 * photo.clutter[9]), 0.2 + 0.8 * photo.clutter[10], side * (0.3 + photo.clutter[11])
    palm = ellipse(x, y + 0.3, 0.2, 0.32, tilt)
    fingers = [ellipse(x - side * 0.12 * k - 0.05 * side, y - 0.02 * k, 0.055, 0.26, tilt) for k in range(3)]
    return [Part(shape, person.skin * (0.94 - 0.05 * k), 0.12) for k, shape in enumerate([palm, *fingers])]


DRAW: dict[str, Callable[[Person, Photo], list[Part]]] = {
    "glasses": _glasses,
    "sunglasses": _sunglasses,
    "cap": _cap,
    "mask": _mask,
    "strand": _strand,
    "hand": _hand,
}
