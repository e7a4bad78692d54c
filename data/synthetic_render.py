"""From a person and a photo to pixels: camera, painting, light and sensor. Imports no torch, so workers start fast."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.synthetic_occlusion import occluding_parts
from facelab.data.synthetic_person import NOISE_STREAM, Floats, Person, draw_person, stream
from facelab.data.synthetic_photo import Photo, draw_photo
from facelab.data.synthetic_shapes import (
    Part,
    behind_head,
    eye_parts,
    hair_parts,
    mouth_parts,
    nose_parts,
    skin_parts,
)

GENERATOR_VERSION = 2  # raise it whenever one pixel of one image changes: caches carry it in their name
OVERSAMPLING = 2
DEPTH = 0.8  # how far the middle of the face stands before the ears
SHIFT = 4  # fractional bits of polygon corners
# Where both eyes, nose tip and both mouth corners come to lie, in fractions of the image.
TEMPLATE = np.array([0.35 + 0.455j, 0.65 + 0.455j, 0.5 + 0.615j, 0.385 + 0.765j, 0.615 + 0.765j])

Image = NDArray[np.uint8]
Planes = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """Projects face coordinates to fractions of the image.

    Attributes:
        rotation: Turns (x, y, z) of the face, (3, 3).
        scale: Complex factor: size and roll of the similarity that aligns the five landmarks.
        offset: Complex shift.
        person: Whose head gives the surface that parts lie on.
    """

    rotation: Floats
    scale: complex
    offset: complex
    person: Person

    def project(self, points: Floats) -> NDArray[np.complex128]:
        """Positions x + iy, in fractions of the image of points (N, 3)."""
        turned = points @ self.rotation.T
        nearer = 1.0 + 0.12 * turned[:, 2]
        flat = (turned[:, 0] + 1j * turned[:, 1]) * nearer
        return np.asarray(flat * self.scale + self.offset)


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
    return _sensor(_lit(albedo, camera, photo), photo, stream(seed, NOISE_STREAM, identity, number))


def aim(person: Person, photo: Photo) -> Camera:
    """A camera that sees the turned head, aligned by its five landmarks up to the photo's misalignment."""
    rotation = _rotation(photo.yaw, photo.pitch)
    spacing, eye, mouth = person.eye_spacing, person.eye_height, person.mouth_height
    landmarks = np.array(
        [
            (-spacing, eye),
            (spacing, eye),
            (0.0, eye + person.nose_length),
            (-person.mouth_width, mouth),
            (person.mouth_width, mouth),
        ]
    )
    above = np.array([0.0, 0.0, person.nose_depth, 0.0, 0.0])
    seen = Camera(rotation, 1.0, 0.0, person).project(on_head(person, landmarks, above, np.ones(5)))
    source, target = seen - seen.mean(), TEMPLATE - TEMPLATE.mean()
    fit = complex(np.vdot(source, target) / np.vdot(source, source).real)
    scale = fit * photo.zoom * complex(np.exp(1j * photo.roll))
    offset = complex(TEMPLATE.mean() - scale * seen.mean()) + complex(photo.shift_x, photo.shift_y)
    return Camera(rotation, scale, offset, person)


def on_head(person: Person, outline: Floats, above: Floats, attached: Floats) -> Floats:
    """Points (N, 2) of the flat face lifted onto the rounded head, (N, 3)."""
    across, down = outline[:, 0] / person.head_width, outline[:, 1] / person.head_height
    surface = DEPTH * np.sqrt(np.clip(1.0 - across**2 - down**2, 0.0, None))
    return np.column_stack([outline, above + attached * surface])


def _rotation(yaw: float, pitch: float) -> Floats:
    turn = np.array([[np.cos(yaw), 0.0, np.sin(yaw)], [0.0, 1.0, 0.0], [-np.sin(yaw), 0.0, np.cos(yaw)]])
    nod = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(pitch), np.sin(pitch)], [0.0, -np.sin(pitch), np.cos(pitch)]])
    return np.asarray(nod @ turn)


def _backdrop(photo: Photo, size: int) -> Image:
    corners = photo.palette[4:6].astype(np.float32)
    ramp = np.linspace(0.0, 1.0, size, dtype=np.float32)[:, None]
    column = corners[0] + (corners[1] - corners[0]) * ramp
    canvas = np.repeat(column.astype(np.uint8)[:, None, :], size, axis=1)
    if photo.clutter[12] < 0.5:
        canvas = np.ascontiguousarray(canvas.transpose(1, 0, 2))
    for shape in range(2 + int(photo.clutter[13] * 2)):
        x, y, width, height = (photo.clutter[14 + shape * 2 : 18 + shape * 2] * size).astype(int).tolist()
        colour = photo.palette[6 + shape % 2].tolist()
        cv2.ellipse(
            canvas, (x, y), (width // 2 + 1, height // 2 + 1), 45.0 * shape, 0, 360, colour, cv2.FILLED, cv2.LINE_AA
        )
    return canvas


def _paint(canvas: Image, parts: list[Part], camera: Camera) -> None:
    counts = [len(part.outline) for part in parts]
    above = np.repeat([part.above for part in parts], counts)
    attached = np.repeat([float(part.attached) for part in parts], counts)
    points = on_head(camera.person, np.concatenate([part.outline for part in parts]), above, attached)
    seen = camera.project(points) * canvas.shape[0] - (0.5 + 0.5j)  # pixel centres lie at whole numbers
    corners = np.rint(np.stack([seen.real, seen.imag], axis=1) * (1 << SHIFT)).astype(np.int32)
    end = 0
    for part, count in zip(parts, counts, strict=True):
        start, end = end, end + count
        cv2.fillPoly(canvas, [corners[start:end]], part.colour.tolist(), cv2.LINE_AA, SHIFT)


def _lit(albedo: Planes, camera: Camera, photo: Photo) -> Planes:
    """Multiply by the light that falls on a rounded head, and on a flat backdrop behind it."""
    size = albedo.shape[0]
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    centre = camera.project(np.array([[0.0, 0.0, 0.3]]))[0]
    local = (axis[None, :] + 1j * axis[:, None] - centre) / camera.scale
    across = (local.real / (camera.person.head_width + 0.1)).astype(np.float32)
    down = (local.imag / (camera.person.head_height + 0.1)).astype(np.float32)
    facing = np.sqrt(np.maximum(1.0 - across**2 - down**2, 0.04))
    norm = np.sqrt(photo.light_x**2 + photo.light_y**2 + 1.0)
    diffuse = np.maximum((across * photo.light_x + down * photo.light_y + facing) / norm, 0.0)
    light = photo.ambient + (1.0 - photo.ambient) * 1.35 * diffuse
    edge = (axis[None, :] - 0.5) * np.cos(photo.shadow_angle) + (axis[:, None] - 0.5) * np.sin(photo.shadow_angle)
    if photo.shadow_edge > 0:
        light = light * (1.0 - photo.shadow_depth / (1.0 + np.exp(-(edge - photo.shadow_edge * 0.4) * 40.0)))
    colour = photo.exposure * np.array([1 + photo.warmth, 1 + photo.tint, 1 - photo.warmth])
    lit: Planes = albedo * light.astype(np.float32)[:, :, None] * colour.astype(np.float32)
    return lit


def _sensor(image: Planes, photo: Photo, noise: np.random.Generator) -> Image:
    size = image.shape[0]
    grey = image.mean(axis=2, keepdims=True)
    image = grey + (image - grey) * photo.saturation
    image = (image - 110.0) * photo.contrast + 110.0
    if photo.resolution > 0:
        small = max(6, round(size * (1.0 - 0.65 * photo.resolution)))
        coarse = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    if photo.softness > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.3 + photo.softness * size / 80.0), np.float32)
    image = image + photo.grain * noise.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(image + 0.5, 0.0, 255.0).astype(np.uint8))
