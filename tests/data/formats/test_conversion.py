"""Pixels as JPEG and PNG."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from facelab.data.base import Pixels
from facelab.data.formats.conversion import encode_jpeg, encode_png
from facelab.data.formats.images import decode_image
from facelab.errors import DataError


def test_png_keeps_every_pixel_and_jpeg_more_of_them_the_higher_its_quality() -> None:
    row, column = np.indices((17, 23))
    pixels = np.stack([255 - 9 * row, 128 + 5 * np.sin(row * column), 11 * column], axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(encode_png(pixels), "here"), pixels)
    found = [decode_image(encode_jpeg(pixels, quality), "here") for quality in (5, 50, 100)]
    errors = [float(np.abs(one.astype(int) - pixels).mean()) for one in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 4, "with red and blue exchanged it would be 50"


@pytest.mark.parametrize(
    ("encode", "width", "kind"), [(partial(encode_jpeg, quality=90), 65_501, "JPEG"), (encode_png, 1_000_001, "PNG")]
)
def test_images_too_large_for_a_format_are_refused(encode: Callable[[Pixels], bytes], width: int, kind: str) -> None:
    with pytest.raises(DataError, match=f"an image of 1x{width} cannot be written as {kind}"):
        encode(np.zeros((1, width, 3), np.uint8))
