"""Boxes of faces: (n, 4), left, top, right and bottom edge."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def square(boxes: Array) -> Array:
    """The squares with the centres and the longer sides of some boxes."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def distinct(boxes: Array, scores: Array, overlap: float, *, of_smaller: bool = False) -> NDArray[np.intp]:
    """Rows of the boxes that no surer box covers, the surest first (non-maximum suppression).

    Args:
        boxes: (n, 4).
        scores: (n,); equal ones count in their order.
        overlap: Part of the area of both boxes together from which on they are one face.
        of_smaller: Count the part of the smaller box instead, so that a box within another is the same face.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0.0).prod(axis=1)
    waiting, kept = np.argsort(-scores, kind="stable"), []
    while len(waiting):
        best, rest = waiting[0], waiting[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        both = (high - low).clip(0.0).prod(axis=1)
        smaller = np.minimum(areas[best], areas[rest])
        whole = smaller if of_smaller else areas[best] + areas[rest] - both
        waiting = rest[both < overlap * np.maximum(whole, np.finfo(np.float64).tiny)]
    return np.array(kept, np.intp)
