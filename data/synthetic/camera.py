"""Where the parts of a turned head appear in the image, aligned by its landmarks as real face images are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facelab.data.synthetic.person import Floats, Person
from facelab.data.synthetic.photo import Photo

DEPTH = 0.8  # how far the middle of the face stands before the ears
PERSPECTIVE = 0.12  # how much larger a thing looks that is one unit nearer
# Where both eyes, nose tip and both mouth corners come to lie, as x + iy in fractions of the image.
TEMPLATE = np.array([0.35 + 0.455j, 0.65 + 0.455j, 0.5 + 0.615j, 0.385 + 0.765j, 0.615 + 0.765j])


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
        """Positions x + iy, in fractions of the image, of points (N, 3)."""
        turned = points @ self.rotation.T
        flat = (turned[:, 0] + 1j * turned[:, 1]) * (1.0 + PERSPECTIVE * turned[:, 2])
        return np.asarray(flat * self.scale + self.offset)


def aim(person: Person, photo: Photo) -> Camera:
    """A camera that sees the turned head, aligned by its five landmarks up to the photo's misalignment."""
    rotation = _rotation(photo.yaw, photo.pitch)
    seen = _see_landmarks(Camera(rotation, 1.0, 0.0, person))
    source, target = seen - seen.mean(), TEMPLATE - TEMPLATE.mean()
    # Least squares of points as complex numbers, where one factor turns and scales: see `alignment.similarity`.
    fit = complex(np.vdot(source, target) / np.vdot(source, source).real)
    scale = fit * photo.zoom * complex(np.exp(1j * photo.roll))
    offset = complex(TEMPLATE.mean() - scale * seen.mean()) + complex(photo.shift_x, photo.shift_y)
    return Camera(rotation, scale, offset, person)


def seen_landmarks(person: Person, photo: Photo) -> Floats:
    """Where the camera sees the five landmarks, (x, y) in fractions of the image, (5, 2)."""
    seen = _see_landmarks(aim(person, photo))
    return np.column_stack((seen.real, seen.imag))


def _see_landmarks(camera: Camera) -> NDArray[np.complex128]:
    above = np.array([0.0, 0.0, camera.person.nose_depth, 0.0, 0.0])
    return camera.project(on_head(camera.person, landmarks(camera.person), above, np.ones(5)))


def landmarks(person: Person) -> Floats:
    """Eyes, nose tip and mouth corners on the flat face, (5, 2)."""
    spacing, eye, mouth, corner = person.eye_spacing, person.eye_height, person.mouth_height, person.mouth_width
    nose = eye + person.nose_length
    return np.array([(-spacing, eye), (spacing, eye), (0.0, nose), (-corner, mouth), (corner, mouth)])


def on_head(person: Person, outline: Floats, above: Floats, attached: Floats) -> Floats:
    """Points of the flat face lifted onto the rounded head.

    Args:
        person: Whose head.
        outline: x and y, (N, 2).
        above: Distance before the surface, (N,).
        attached: 1 for points on the surface of the head, 0 for points in the plane of the ears, (N,).

    Returns:
        x, y and z, (N, 3).
    """
    across, down = outline[:, 0] / person.head_width, outline[:, 1] / person.head_height
    surface = DEPTH * np.sqrt(np.maximum(1.0 - across**2 - down**2, 0.0))
    return np.column_stack([outline, above + attached * surface])


def _rotation(yaw: float, pitch: float) -> Floats:
    turn = np.array([[np.cos(yaw), 0.0, np.sin(yaw)], [0.0, 1.0, 0.0], [-np.sin(yaw), 0.0, np.cos(yaw)]])
    nod = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(pitch), np.sin(pitch)], [0.0, -np.sin(pitch), np.cos(pitch)]])
    return np.asarray(nod @ turn)
