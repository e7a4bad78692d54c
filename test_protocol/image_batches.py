"""Batches of an image set, read ahead by threads: decoding releases Python's lock."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

from facelab.data.base import ImageSet, Pixels
from facelab.errors import DataError

MAX_READERS = 8
BATCHES_AHEAD = 2  # beside one in each reader


def image_batches(
    images: ImageSet, rows: range, batch_size: int, size: tuple[int, int], *, resize: bool = False, workers: int = 0
) -> Iterator[tuple[range, Pixels]]:
    """Row numbers and pixels of some images, batch by batch in their order.

    Args:
        images: What to read.
        rows: Which of them.
        batch_size: B; the last batch may be smaller.
        size: Height and width that the images must have.
        resize: Whether images of another size are resized; otherwise they are refused.
        workers: Threads; 0 for one per core, at most 8.

    Yields:
        The rows, and uint8 RGB pixels (B, H, W, 3): channels_last once the axes are permuted.

    Raises:
        CorruptImage: If an image cannot be read.
        DataError: If one has another size and ``resize`` is off.
    """
    readers = workers or min(MAX_READERS, os.cpu_count() or 1)
    waiting: deque[tuple[range, Future[Pixels]]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        try:
            for start in range(rows.start, rows.stop, batch_size):
                batch = range(start, min(start + batch_size, rows.stop))
                waiting.append((batch, pool.submit(_read, images, batch, size, resize)))
                if len(waiting) >= readers + BATCHES_AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(images: ImageSet, rows: range, size: tuple[int, int], resize: bool) -> Pixels:
    batch = np.empty((len(rows), *size, 3), np.uint8)
    for place, row in enumerate(rows):
        pixels = images.read(row)
        if pixels.shape[:2] != size:
            if not resize:
                raise DataError(
                    f"{images.location(row)}: the image is {pixels.shape[0]}x{pixels.shape[1]}, but the network takes "
                    f"{size[0]}x{size[1]}; align the images to that size, or allow resizing with resize=true."
                )
            pixels = resized(pixels, size)
        batch[place] = pixels
    return batch


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels (H, W, 3) at another (height, width): areas are averaged when the image shrinks, else linear."""
    shrinks = size[0] <= pixels.shape[0] and size[1] <= pixels.shape[1]
    rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=rule), np.uint8)
