"""A whole set of images through a scorer: threads that read and score side by side, with one core each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.errors import CorruptImage, DataError
from facelab.iqa.scored_set import ReadableImages, ScoredSet, ScoresBatches, ScoringOptions
from facelab.progress import OnProgress
from facelab.threads import thread_count


def score_images(
    scorer: ScoresBatches, images: ReadableImages, options: ScoringOptions, progress: OnProgress | None = None
) -> ScoredSet:
    """Score all images of a set.

    Args:
        scorer: Its ``score`` is called from several threads, unless it is ``sequential``.
        images: What to score; sizes may differ.
        options: Device, batch size and threads.
        progress: Called with (done, all) after each batch.

    Raises:
        DataError: If a score is refused; the message names the images.
    """
    values, failed = np.full(len(images), np.nan, np.float32), []
    batches = [
        range(start, min(start + options.batch_size, len(images)))
        for start in range(0, len(images), options.batch_size)
    ]
    turn = Lock() if scorer.sequential else nullcontext()
    with _threads(options.workers) as pool:
        for rows, (scores, unread) in zip(
            batches, pool.map(partial(_batch, scorer, images, options, turn), batches), strict=True
        ):
            values[rows.start : rows.stop] = scores
            failed += unread
            if progress is not None:
                progress(rows.stop, len(images))
    return ScoredSet(values, tuple(failed))


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that compute with one core each; cores that wait for each other inside an operation are slower."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(thread_count(workers), "scorer", initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            yield pool
    finally:
        torch.set_num_threads(before)  # later threads would start with one core


def _batch(
    scorer: ScoresBatches,
    images: ReadableImages,
    options: ScoringOptions,
    turn: AbstractContextManager[object],
    rows: range,
) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    """Scores of some rows, NaN where one could not be read, and which those are."""
    scores, failed = np.full(len(rows), np.nan, np.float32), []
    by_size: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
    for place, row in enumerate(rows):
        try:
            pixels = images.read(row)
        except CorruptImage as error:
            failed.append((row, str(error)))
            continue
        by_size.setdefault(pixels.shape, []).append((place, pixels))
    for group in by_size.values():
        places = [place for place, _ in group]
        batch = torch.from_numpy(np.stack([pixels for _, pixels in group])).permute(0, 3, 1, 2)
        try:
            with turn:
                scores[places] = scorer.score(batch.to(options.device)).cpu().numpy()
        except DataError as error:
            raise DataError(f"among {len(group)} images from '{images.name(rows[places[0]])}' on: {error}") from None
    return scores, failed
