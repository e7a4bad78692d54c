"""Batches of an image set, read ahead by threads: decoding releases Python's lock."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from facelab.data.base import ImageSet, Pixels
from facelab.data.formats.images import resize_image
from facelab.data.loading.batch_reader import read_checked
from facelab.errors import CorruptImage, DataError
from facelab.inputs import check_aligned_shape
from facelab.test_protocol.extraction.extraction_settings import ExtractionSettings
from facelab.threads import thread_count

BATCHES_AHEAD = 2  # beside one in each reader

FailedImage = tuple[int, str]
"""Row of an image that could not be read, and why."""


@dataclass(frozen=True)
class ReadBatch:
    """Some images in a row.

    Attributes:
        rows: Which images of the set.
        pixels: uint8 RGB, (B, H, W, 3): channels_last once the axes are permuted; black where one could not be read.
        failed: Those that could not be read.
    """

    rows: range
    pixels: Pixels
    failed: tuple[FailedImage, ...]


def image_batches(
    images: ImageSet, batches: Sequence[range], size: tuple[int, int], how: ExtractionSettings
) -> Iterator[ReadBatch]:
    """Some batches of a set in their order.

    Args:
        images: What to read.
        batches: Rows of each batch.
        size: Height and width that the images must have.
        how: Whether others are resized, and which, what becomes of corrupt images, and how many threads read.

    Raises:
        CorruptImage: If an image cannot be read, under ``on_corrupt: error``.
        DataError: If one has another size and ``resize`` is off.
    """
    readers = thread_count(how.workers)
    waiting: deque[Future[ReadBatch]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        try:
            for rows in batches:
                waiting.append(pool.submit(_read, images, rows, size, how))
                if len(waiting) >= readers + BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Whoever stops early waits for batches that are being read, not for those that nobody began.
            pool.shutdown(cancel_futures=True)


def _read(images: ImageSet, rows: range, size: tuple[int, int], how: ExtractionSettings) -> ReadBatch:
    batch = np.empty((len(rows), *size, 3), np.uint8)
    failed = []
    for place, row in enumerate(rows):
        try:
            pixels = read_checked(images, row)
        except CorruptImage as error:
            if how.on_corrupt == "error":
                raise
            failed.append((row, str(error)))
            batch[place] = 0
            continue
        if pixels.shape[:2] != size and not how.any_photo:
            _check_size(pixels, size, images.location(row), how.resize)
        batch[place] = resize_image(pixels, *size)
    return ReadBatch(rows, batch, tuple(failed))


def _check_size(pixels: Pixels, size: tuple[int, int], where: str, resize: bool) -> None:
    height, width, _ = pixels.shape
    what = f"{where}: the image is {height}x{width}, but the network takes {size[0]}x{size[1]}"
    if not resize:
        raise DataError(f"{what}; align the images to that size, or allow resizing with resize=true.")
    check_aligned_shape((height, width), size, what)
