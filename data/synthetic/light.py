"""Light on a rounded head, and what the sensor of a camera makes of it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.synthetic.camera import Camera
from facelab.data.synthetic.photo import Photo

Image = NDArray[np.uint8]
Planes = NDArray[np.float32]

MIDDLE_GREY = 110.0  # the level that contrast leaves as it is
EDGE_SHARPNESS = 40.0
LEAST_PIXELS = 6


def lit(albedo: Planes, camera: Camera, photo: Photo) -> Planes:
    """Multiply the colours (H, W, 3) by the light that falls on head and backdrop, before any colour cast."""
    axis = (np.arange(albedo.shape[0], dtype=np.float32) + np.float32(0.5)) / np.float32(albedo.shape[0])
    light = _shading(axis, camera, photo)
    if photo.shadow_edge > 0:
        light = light * _shadow(axis, photo)
    return albedo * light[:, :, None]


def _shading(axis: Planes, camera: Camera, photo: Photo) -> Planes:
    """Ambient and diffuse light on an ellipsoid around the head, (H, W)."""
    inverse = 1.0 / camera.scale
    origin = -camera.project(np.array([[0.0, 0.0, 0.3]]))[0] * inverse
    wide, high = camera.person.head_width + 0.1, camera.person.head_height + 0.1
    across = _plane(axis, inverse.real / wide, -inverse.imag / wide, origin.real / wide)
    down = _plane(axis, inverse.imag / high, inverse.real / high, origin.imag / high)
    # Off the head there is no surface to face the light; a small rest lights the backdrop.
    facing = np.sqrt(np.maximum(1.0 - across * across - down * down, np.float32(0.04)))
    share = 1.35 * (1.0 - photo.ambient) / np.sqrt(photo.light_x**2 + photo.light_y**2 + 1.0)
    diffuse = across * np.float32(photo.light_x) + down * np.float32(photo.light_y) + facing
    return np.asarray(np.float32(photo.ambient) + np.float32(share) * np.maximum(diffuse, np.float32(0.0)))


def _shadow(axis: Planes, photo: Photo) -> Planes:
    """Light left over by something with a straight edge, (H, W)."""
    cosine, sine = np.cos(photo.shadow_angle), np.sin(photo.shadow_angle)
    place = _plane(axis, cosine, sine, -0.5 * (cosine + sine) - 0.4 * photo.shadow_edge)
    return np.asarray(1.0 - np.float32(photo.shadow_depth) / (1.0 + np.exp(place * np.float32(-EDGE_SHARPNESS))))


def _plane(axis: Planes, per_x: float, per_y: float, constant: float) -> Planes:
    """The values ``per_x * x + per_y * y + constant`` over the image, (H, W)."""
    column = (axis * np.float32(per_y) + np.float32(constant))[:, None]
    return np.asarray(axis[None, :] * np.float32(per_x) + column, np.float32)


def sensed(image: Planes, photo: Photo, noise: np.random.Generator) -> Image:
    """Colour cast, exposure, saturation, contrast, resolution, blur and noise: the finished image (H, W, 3)."""
    size = image.shape[0]
    image = np.asarray(cv2.transform(image, _colour_matrix(photo)), np.float32)
    if photo.resolution > 0:
        small = max(LEAST_PIXELS, round(size * (1.0 - 0.65 * photo.resolution)))
        coarse = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    if photo.softness > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.3 + photo.softness * size / 80.0), np.float32)
    # Last, since it is the sensor's: blur and resolution would average it away.
    grain = noise.standard_normal(image.shape, dtype=np.float32)
    image = image + np.float32(photo.grain) * grain
    # The conversion cuts off; half a level more makes it round.
    return np.asarray(np.clip(image + np.float32(0.5), 0.0, 255.0).astype(np.uint8))


def _colour_matrix(photo: Photo) -> NDArray[np.float64]:
    """Cast and exposure, then saturation, then contrast, as one affine map of RGB, (3, 4)."""
    cast = photo.exposure * np.array([1.0 + photo.warmth, 1.0 + photo.tint, 1.0 - photo.warmth])
    mixed = photo.saturation * np.eye(3) + (1.0 - photo.saturation) / 3.0
    lift = np.full((3, 1), MIDDLE_GREY * (1.0 - photo.contrast))
    return np.hstack([photo.contrast * mixed * cast, lift])
