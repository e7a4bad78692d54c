"""Face alignment: five landmarks -> similarity transform -> face at a fixed place in a square image.

Pixel centres lie at whole numbers: pixel (x, y) covers x - 0.5 to x + 0.5. Landmarks are (x, y), in the order left eye,
right eye, nose, left and right corner of the mouth, as seen in the image.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Pixels
from facelab.errors import ConfigError, DataError

Points = NDArray[np.float64]
TemplateForm = Literal["scaled", "resized"]

ARCFACE_112: Points = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Where ArcFace (Deng et al., arXiv:1801.07698) puts the five landmarks in 112x112 pixels."""

FIVE_POSES_112: Points = np.array(
    [
        [(51.642, 50.115), (57.617, 49.990), (35.740, 69.007), (51.157, 89.050), (57.025, 89.702)],
        [(45.031, 50.118), (65.568, 50.872), (39.677, 68.111), (45.177, 86.190), (64.246, 86.758)],
        [(39.730, 51.138), (72.270, 51.138), (56.000, 68.493), (42.463, 87.010), (69.537, 87.010)],
        [(46.845, 50.872), (67.382, 50.118), (72.737, 68.111), (48.167, 86.758), (67.236, 86.190)],
        [(54.796, 49.990), (60.771, 50.115), (76.673, 69.007), (55.388, 89.702), (61.257, 89.050)],
    ]
)
"""InsightFace's templates for a face turned left, half left, ahead, half right and right, (5, 5, 2)."""

FIVE_OF = {
    25: ((0,), (1,), (7,), (10,), (11,)),
    68: ((36, 39), (42, 45), (30,), (48,), (54,)),
    # FaceX-Zoo counts them from 1: 105, 106, 55, 85, 91.
    106: ((104,), (105,), (54,), (84,), (90,)),
}
"""Which points of a larger set make the five; several are averaged (68: the two corners of each eye)."""

MIN_SPREAD = 0.5
"""Pixels. Landmarks closer together than this do not say where a face is, or are not in pixels at all."""
MIN_SCALE = 1e-3
"""A fit that shrinks the landmarks to less than this part of the template follows none of their shape."""


FARTHEST = 1e9
"""Pixels. Beyond this, squares of coordinates lose their digits."""
LEAST_LIKENESS = 0.75
"""Part of the landmarks' spread that a fit to the nearest of `FIVE_POSES_112` must explain. Faces turned by up to 90
degrees and tilted by 45 have 0.85 and more; frontal ones in another order (y before x, left and right of the subject,
nose or mouth first) 0.66 and less."""
FRONTAL, SURELY = slice(2, 3), 0.85
"""The pose ahead, and how like it landmarks are that were written x1..x5 y1..y5 and are read so. Those of frontal faces
have 0.95 and more, landmarks that were written in pairs 0.55 and less. (Far from the corner of a photo, mistaken ones
look like a face in profile: three clusters.)"""
ORDER = "left eye, right eye, nose, left and right corner of the mouth as seen in the image, x before y"


def template(size: int = 112, form: TemplateForm = "scaled") -> Points:
    """Places of the five landmarks in an aligned image.

    Args:
        size: Side of the square image, in pixels.
        form: ``scaled`` multiplies the places by ``size / 112``. ``resized`` puts them where they lie after an
            image aligned at 112 is resized (half-pixel centres), which is how PETALface makes its 120. At 120 the two
            differ by a shift of 0.036 pixels.

    Returns:
        (5, 2).

    Raises:
        ConfigError: If the size is below 16 pixels.
    """
    if size < 16:
        raise ConfigError(f"aligned images of {size}x{size} pixels are too small; take a size of 16 or more.")
    half = 0.5 if form == "resized" else 0.0
    return (ARCFACE_112 + half) * (size / 112) - half


def five_points(points: NDArray[np.floating], where: str = "landmarks") -> Points:
    """Five landmarks of a set of 5, 25, 68 (300-W) or 106 (FaceX-Zoo, JD) points.

    Args:
        points: (K, 2).
        where: Names the image in messages.

    Returns:
        (5, 2), float64.

    Raises:
        DataError: If there are not 5, 25, 68 or 106 points.
    """
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in (5, *FIVE_OF):
        raise DataError(f"{where}: landmarks must be 5, 25, 68 or 106 points (x, y), got shape {points.shape}.")
    exact = points.astype(np.float64)
    if len(exact) == 5:
        return exact
    return np.stack([exact[list(chosen)].mean(axis=0) for chosen in FIVE_OF[len(exact)]])


def similarity(landmarks: NDArray[np.floating], target: Points, where: str = "landmarks") -> Points:
    """The rotation, scale and shift (never a reflection) that bring landmarks nearest to a target.

    Least squares, as Umeyama (IEEE TPAMI 1991, Eq. 40-43); in the plane it has a closed form: with centred points as
    complex numbers z and w, rotation and scale are ``sum(conj(z) w) / sum(|z|**2)``.

    Args:
        landmarks: (..., K, 2) places in the image, K at least 2.
        target: (K, 2) places in the aligned image.
        where: Names the image in messages.

    Returns:
        (..., 2, 3): maps (x, y, 1) of the image to (x, y) of the aligned image.

    Raises:
        DataError: If landmarks are not finite, not at least two different points, or of no use for this target.
    """
    source = landmarks.astype(np.float64)
    if not np.isfinite(source).all():
        raise DataError(f"{where}: a landmark is not a finite number.")
    centre, target_centre = source.mean(axis=-2), target.mean(axis=-2)
    z, w = _complex(source - centre[..., None, :]), _complex(target - target_centre)
    spread = np.sqrt((np.abs(z) ** 2).mean(axis=-1))
    if (spread < MIN_SPREAD).any():
        raise DataError(
            f"{where}: the landmarks lie within {spread.min():.3g} pixels of each other; "
            "an alignment needs at least two different points, in pixels."
        )
    # A complex factor turns and scales; it cannot reflect, so no face comes out mirrored.
    turn = (z.conj() * w).mean(axis=-1) / spread**2
    if (np.abs(turn) * spread < MIN_SCALE * np.sqrt((np.abs(w) ** 2).mean())).any():
        raise DataError(f"{where}: the landmarks do not resemble a face; check their order (eyes, nose, mouth).")
    linear = np.stack([np.stack([turn.real, -turn.imag], -1), np.stack([turn.imag, turn.real], -1)], -2)
    shift = target_centre - (linear @ centre[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], axis=-1)


def unlike_faces(landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which landmarks no face can have, in whatever pose and place: mostly because they come in another order.

    Args:
        landmarks: (N, 5, 2).

    Returns:
        (N,); False where landmarks are not finite or all at one place, which `similarity` refuses.
    """
    usable = np.where(np.abs(landmarks).max(axis=(1, 2), keepdims=True) < FARTHEST, landmarks, 0.0)
    unlike = _likeness(usable, FIVE_POSES_112) < LEAST_LIKENESS
    apart = usable.reshape(-1, 2, 5).swapaxes(1, 2)  # read as x1..x5 y1..y5
    frontal = FIVE_POSES_112[FRONTAL]
    return np.asarray(unlike | (np.maximum(_likeness(apart, frontal), _likeness(apart[..., ::-1], frontal)) > SURELY))


def _likeness(points: Points, targets: Points) -> NDArray[np.float64]:
    """Part of the spread of points (N, 5, 2) that a fit to the nearest target (T, 5, 2) explains, (N,)."""
    z, w = (_complex(some - some.mean(axis=1, keepdims=True)) for some in (points, targets))
    spread = (np.abs(z) ** 2).sum(axis=1)[:, None] * (np.abs(w) ** 2).sum(axis=1)
    # Points that are all at one place become NaN, which no comparison calls unlike: `similarity` refuses them.
    return np.asarray((np.abs(z.conj() @ w.T) ** 2 / np.where(spread > 0, spread, np.nan)).max(axis=1))


def refuse_other_order(landmarks: NDArray[np.floating], where: Callable[[int], str]) -> NDArray[np.int64]:
    """Refuse landmarks most of which no face can have.

    Args:
        landmarks: (N, 5, 2).
        where: Names a row in the message.

    Returns:
        Rows of those that no face can have, where they are not the most.

    Raises:
        DataError: If they are; the message names the first.
    """
    rows = np.flatnonzero(unlike_faces(landmarks))
    if 2 * len(rows) > len(landmarks):
        raise DataError(
            f"{where(int(rows[0]))}: no face has its landmarks like this, nor do {len(rows) - 1} others of "
            f"{len(landmarks)}; the order must be {ORDER}."
        )
    return rows


def nearest_pose(landmarks: NDArray[np.floating], targets: Points, where: str = "landmarks") -> tuple[Points, int]:
    """The similarity transform to whichever of several targets the landmarks come nearest to.

    Args:
        landmarks: (K, 2).
        targets: (T, K, 2), for example `FIVE_POSES_112`.
        where: Names the image in messages.

    Returns:
        The (2, 3) matrix, and the number of the target with the smallest sum of distances.

    Raises:
        DataError: As `similarity`.
    """
    matrices = np.stack([similarity(landmarks, target, where) for target in targets])
    moved = landmarks.astype(np.float64) @ matrices[:, :, :2].swapaxes(1, 2) + matrices[:, None, :, 2]
    # By distances and not by their squares, which the fit makes least: so InsightFace's program chooses.
    best = int(np.linalg.norm(moved - targets, axis=2).sum(axis=1).argmin())
    return matrices[best], best


def warp(image: Pixels, matrix: Points, size: int = 112) -> Pixels:
    """The aligned image: bilinear, zero outside of the source, rounded.

    Computed here in float64, because OpenCV before version 5 rounds positions to 1/32 pixel (up to four grey levels).

    Args:
        image: (H, W, 3), uint8.
        matrix: (2, 3), from `similarity`.
        size: Side of the result, in pixels.

    Returns:
        (size, size, 3), uint8.
    """
    height, width = image.shape[:2]
    inverse = np.linalg.inv(matrix[:, :2])
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    # Farther outside is as black as just outside, and no position is too large for an integer.
    x, y = (inverse @ (grid - matrix[:, 2]).T).clip(-2.0, [[width + 1.0], [height + 1.0]])
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_part, lower_part = x - left, y - top
    flat = image.reshape(height * width, 3)
    total = np.zeros((size * size, 3))
    for row, row_weight in ((top, 1.0 - lower_part), (top + 1, lower_part)):
        for column, column_weight in ((left, 1.0 - right_part), (left + 1, right_part)):
            # Each of the four neighbours by itself: at the border, the part of the weights that lies outside counts as
            # black.
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            pixels = flat[np.where(inside, row * width + column, 0)]
            total += pixels * np.where(inside, row_weight * column_weight, 0.0)[:, None]
    return np.rint(total).astype(np.uint8).reshape(size, size, 3)


def align(
    image: Pixels,
    landmarks: NDArray[np.floating],
    size: int = 112,
    form: TemplateForm = "scaled",
    where: str = "landmarks",
) -> Pixels:
    """A face brought to the template: `five_points`, `similarity` and `warp` in one.

    Args:
        image: RGB, uint8, (H, W, 3).
        landmarks: (K, 2) with 5, 25, 68 or 106 points.
        size: Side of the result, in pixels.
        form: See `template`.
        where: Names the image in messages.

    Returns:
        RGB, uint8, (size, size, 3).

    Raises:
        DataError: If the landmarks are degenerate, or all lie outside of the image; the message names it.
    """
    five = five_points(landmarks, where)
    matrix = similarity(five, template(size, form), where)
    height, width = image.shape[:2]
    if not ((five > -1) & (five < (width, height))).all(axis=1).any():
        raise DataError(
            f"{where}: all landmarks lie outside of the image, which is {height}x{width} (height x width); the "
            f"first is at ({five[0, 0]:g}, {five[0, 1]:g})."
        )
    return warp(image, matrix, size)


def _complex(points: Points) -> NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * points[..., 1])
