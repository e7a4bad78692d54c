"""One look at every image: whether it can be read, its size, colour, hash, quality and landmarks."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.data.base import Pixels, Source
from facelab.data.loading.batch_reader import read_checked
from facelab.data.loading.ordered_map import ordered_map
from facelab.doctor.image_hash import Hashes, coefficients, hashes, usual
from facelab.errors import CorruptImage, DataError
from facelab.iqa.base import PixelScorer
from facelab.progress import OnProgress
from facelab.threads import thread_count

BATCH = 64
SAMPLE = 2000  # images that say what is usual in a set
MIDDLE = (slice(3, 8), slice(2, 6))  # of 9 x 8 parts: cheeks, nose and mouth of an aligned face


class FindPoints(Protocol):
    """Finds landmarks in images of one size; it may be called from several threads."""

    def __call__(self, images: Pixels) -> NDArray[np.floating]:
        """Five landmarks of each image, (B, H, W, 3) -> (B, 5, 2), in pixels; NaN where no face is found."""


@dataclass(frozen=True)
class Survey:
    """What was seen of N images.

    Attributes:
        failed: Row and reason of each that cannot be read, ascending.
        size: Height and width, int32, (N, 2); zero where it cannot be read.
        warmth: ``(red - blue) / (red + green + blue)`` of the middle of the face, float32, (N,).
        hash: See `image_hash`, uint64, (N, 4).
        quality: Score, float32, (N,); NaN where it cannot be read; None without a scorer.
        points: Landmarks in pixels, float32, (N, 5, 2); NaN where none were found; None where none were looked for.
    """

    failed: tuple[tuple[int, str], ...]
    size: NDArray[np.int32]
    warmth: NDArray[np.float32]
    hash: Hashes
    quality: NDArray[np.float32] | None
    points: NDArray[np.float32] | None

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which images can be read, (N,)."""
        return self.size[:, 0] > 0


def survey(
    source: Source,
    scorer: PixelScorer | None = None,
    find_points: FindPoints | None = None,
    *,
    workers: int = 0,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Survey:
    """Read all images once, in several threads, and keep about 100 bytes of each.

    Args:
        source: The images, of whatever sizes.
        scorer: Judges their quality.
        find_points: Finds their landmarks.
        workers: Threads; 0 for one per core.
        seed: Chooses the images that say what is usual.
        progress: Called with the number of images done, and of all.

    Raises:
        DataError: If none of the images can be read.
    """
    count = len(source)
    seen = Survey(
        (),
        np.zeros((count, 2), np.int32),
        np.zeros(count, np.float32),
        np.zeros((count, 4), np.uint64),
        None if scorer is None else np.full(count, np.nan, np.float32),
        None if find_points is None else np.full((count, 5, 2), np.nan, np.float32),
    )
    batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    turn = Lock() if scorer is not None and scorer.sequential else nullcontext()
    look = partial(_look, source, seen, _usual(source, seed), scorer, turn, find_points)
    failed: list[tuple[int, str]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each thread one core: cores that wait for each other inside an operation are slower
    try:
        for rows, bad in zip(batches, ordered_map(look, batches, workers=thread_count(workers), ahead=2), strict=True):
            failed += bad
            if progress is not None:
                progress(rows.stop, count)
    finally:
        torch.set_num_threads(threads)
    if len(failed) == count:
        raise DataError(f"none of the {count:,} images can be read, the first: {failed[0][1]}")
    return Survey(tuple(failed), seen.size, seen.warmth, seen.hash, seen.quality, seen.points)


def _usual(source: Source, seed: int) -> NDArray[np.float32]:
    """Thresholds of the hash, from some images."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(source))[:SAMPLE])
    found = []
    for row in rows.tolist():
        try:
            found.append(coefficients([read_checked(source, row)]))
        except CorruptImage:
            continue  # it is named when all are read
    return usual(np.concatenate(found) if found else np.zeros((1, 256), np.float32))


def _look(
    source: Source,
    seen: Survey,
    thresholds: NDArray[np.float32],
    scorer: PixelScorer | None,
    turn: AbstractContextManager[object],
    find_points: FindPoints | None,
    rows: range,
) -> list[tuple[int, str]]:
    """Fill in what some rows show; gives those that cannot be read."""
    failed, by_size = [], dict[tuple[int, ...], list[tuple[int, Pixels]]]()
    for row in rows:
        try:
            pixels = read_checked(source, row)
        except CorruptImage as error:
            failed.append((row, str(error)))
            continue
        by_size.setdefault(pixels.shape[:2], []).append((row, pixels))
    for size, group in by_size.items():
        places, images = [row for row, _ in group], [pixels for _, pixels in group]
        stacked = np.stack(images)
        seen.size[places] = size
        seen.warmth[places] = warmth(stacked)
        seen.hash[places] = hashes(coefficients(images), thresholds)
        if scorer is not None and seen.quality is not None and min(size) >= scorer.smallest:
            with turn:
                seen.quality[places] = scorer.score(torch.from_numpy(stacked).permute(0, 3, 1, 2)).numpy()
        if find_points is not None and seen.points is not None:
            seen.points[places] = find_points(stacked)
    return failed


def warmth(images: Pixels) -> NDArray[np.float32]:
    """``(red - blue) / (red + green + blue)`` of the middle of some faces, (B, H, W, 3) -> (B,), -1..1.

    Skin of every colour reflects more red than blue: of LFW's faces 99 % have more than 0.04, 1 % hardly differ from
    grey, and with red and blue swapped 99 % have less than -0.06.
    """
    height, width = images.shape[1:3]
    down, across = (
        slice(part.start * side // parts, max(part.stop * side // parts, part.start * side // parts + 1))
        for part, side, parts in zip(MIDDLE, (height, width), (9, 8), strict=True)
    )
    red, green, blue = images[:, down, across].mean(axis=(1, 2), dtype=np.float32).T
    return np.asarray((red - blue) / np.maximum(red + green + blue, 1.0), np.float32)
