"""Small copies of the images that a model confuses, for the report."""

from dataclasses import replace

import cv2
import numpy as np

from facelab.data.base import ImageSet
from facelab.data.formats.images import resize_image
from facelab.errors import CorruptImage
from facelab.test_protocol.base import Embeddings, Mistake, Picture

MAX_SIDE = 112
JPEG_QUALITY = 85


def with_pictures(
    mistakes: tuple[Mistake, ...], images: ImageSet, embeddings: Embeddings | None = None
) -> tuple[Mistake, ...]:
    """The same mistakes with their images, at most 112 pixels wide and high.

    Args:
        mistakes: Of a protocol.
        images: The protocol's images.
        embeddings: Theirs; where they carry quality scores, the pictures do.
    """
    scores = None if embeddings is None else embeddings.quality_scores
    rows = sorted({row for mistake in mistakes for row in (mistake.left, mistake.right)})
    pictures = {
        row: Picture(images.location(row), small_jpeg(images, row), None if scores is None else float(scores[row]))
        for row in rows
    }
    return tuple(replace(found, pictures=(pictures[found.left], pictures[found.right])) for found in mistakes)


def small_jpeg(images: ImageSet, row: int) -> bytes:
    """An image as JPEG, at most 112 pixels wide and high; empty if it cannot be read."""
    try:
        pixels = images.read(row)
    except CorruptImage:  # embeddings come from a cache, and the image is gone: the numbers stay what they are
        return b""
    height, width = pixels.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        pixels = resize_image(pixels, max(1, round(scale * height)), max(1, round(scale * width)))
    _, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return encoded.tobytes()
