"""From a person and a photo to pixels. Imports no torch, so that worker processes start fast."""

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.synthetic.camera import Camera, aim, on_head
from facelab.data.synthetic.light import lit, sensed
from facelab.data.synthetic.occlusion import occluding_parts
from facelab.data.synthetic.person import NOISE_STREAM, draw_person, stream
from facelab.data.synthetic.photo import Photo, draw_photo
from facelab.data.synthetic.shapes import (
    Part,
    behind_head,
    eye_parts,
    hair_parts,
    mouth_parts,
    nose_parts,
    skin_parts,
)

GENERATOR_VERSION = 4  # raise it whenever one pixel of one image changes: caches carry it in their name
OVERSAMPLING = 2
SHIFT = 4  # fractional bits of polygon corners

Image = NDArray[np.uint8]


def render_face(seed: int, identity: int, number: int, size: int) -> Image:
    """Photo ``number`` of person ``identity`` of population ``seed``; depends on nothing else.

    Args:
        seed: Population, 0 or more.
        identity: Number of the person, 0 or more.
        number: Number of the photo, 0 or more.
        size: Height and width in pixels.

    Returns:
        RGB, (size, size, 3).
    """
    person, photo = draw_person(seed, identity), draw_photo(seed, identity, number)
    camera = aim(person, photo)
    canvas = _backdrop(photo, size * OVERSAMPLING)
    parts = [
        *behind_head(person, photo),
        *skin_parts(person, photo),
        *eye_parts(person, photo),
        *nose_parts(person, photo),
        *mouth_parts(person, photo),
        *hair_parts(person, photo),
        *occluding_parts(person, photo),
    ]
    _paint(canvas, parts, camera)
    albedo = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    return sensed(lit(albedo, camera, photo), photo, stream(seed, NOISE_STREAM, identity, number))


def _backdrop(photo: Photo, size: int) -> Image:
    """A ramp between two colours, and some ellipses."""
    first, last = photo.palette[4:6]
    column = first + (last - first) * np.linspace(0.0, 1.0, size)[:, None]
    across = photo.clutter[12] < 0.5
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = column[None, :] if across else column[:, None]
    for shape in range(2 + int(photo.clutter[13] * 2)):
        x, y, width, height = (photo.clutter[14 + shape * 2 : 18 + shape * 2] * size).astype(int).tolist()
        axes, colour = (width // 2 + 1, height // 2 + 1), photo.palette[6 + shape % 2].tolist()
        cv2.ellipse(canvas, (x, y), axes, 45.0 * shape, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
    return canvas


def _paint(canvas: Image, parts: list[Part], camera: Camera) -> None:
    """Project all parts at once and fill them, one over the other."""
    counts = [len(part.outline) for part in parts]
    above = np.repeat([part.above for part in parts], counts)
    attached = np.repeat([float(part.attached) for part in parts], counts)
    points = on_head(camera.person, np.concatenate([part.outline for part in parts]), above, attached)
    seen = camera.project(points) * canvas.shape[0] - (0.5 + 0.5j)  # pixel centres lie at whole numbers
    corners = np.rint(np.column_stack([seen.real, seen.imag]) * (1 << SHIFT)).astype(np.int32)
    end = 0
    for part, count in zip(parts, counts, strict=True):
        start, end = end, end + count
        cv2.fillPoly(canvas, [corners[start:end]], part.colour.tolist(), cv2.LINE_AA, SHIFT)
