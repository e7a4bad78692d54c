"""One vector for each image, ready to be compared: joins mirrored images, unit length, in float32 a block at a time."""

from typing import Literal

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.metrics.pair_scores import unit
from facelab.test_protocol.metrics.score_tiles import Matrix

Joining = Literal["sum", "normalised_sum", "concat"]
JOININGS: tuple[Joining, ...] = ("sum", "normalised_sum", "concat")
ROWS = 16384


def vectors(
    embeddings: Embeddings, flip: bool, fusion: Joining, rows: Integers | None = None, *, raw: bool = False
) -> Matrix:
    """Vectors of some images, computed in float64 and given as float32, (R, D), or (R, 2D) for ``concat``.

    Args:
        embeddings: Of all images.
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How: ``sum`` adds them as they are, ``normalised_sum`` gives each unit length before, ``concat`` gives
            each unit length and puts one behind the other.
        rows: Which images; by default all.
        raw: Whether the result keeps its length; by default each vector gets unit length.

    Raises:
        DataError: If mirrored images are wanted and missing or of another size, or a value is not finite.
    """
    plain, mirrored = embeddings.values, embeddings.flipped
    if flip and (mirrored is None or mirrored.shape != plain.shape):
        got = "there are none" if mirrored is None else f"got {mirrored.shape} beside {plain.shape}"
        raise DataError(f"flip is on, but the embeddings of the mirrored images do not fit: {got}.")
    chosen = np.arange(len(plain)) if rows is None else rows
    width = plain.shape[1] * (2 if flip and fusion == "concat" else 1)
    result = np.empty((len(chosen), width), np.float32)
    # A block at a time: all of a million embeddings of 512 numbers in float64 are 4 GB more.
    for start in range(0, len(chosen), ROWS):
        part = chosen[start : start + ROWS]
        joined = _finite(plain, part)
        if flip and mirrored is not None:
            joined = _join(joined, _finite(mirrored, part), fusion)
        result[start : start + ROWS] = joined if raw else unit(joined)
    return result


def _join(plain: Floats, mirrored: Floats, fusion: Joining) -> Floats:
    if fusion == "sum":
        return np.asarray(plain + mirrored)
    if fusion == "normalised_sum":
        return np.asarray(unit(plain) + unit(mirrored))
    return np.concatenate((unit(plain), unit(mirrored)), axis=1)


def _finite(values: Matrix, rows: Integers) -> Floats:
    part = values[rows].astype(np.float64)
    finite = np.isfinite(part).all(axis=1)
    if not finite.all():
        raise DataError(f"the embedding of image {int(rows[np.argmin(finite)])} (from 0) is not finite.")
    return part


def readable(embeddings: Embeddings) -> Booleans:
    """Which images take part: all that could be read, bool, (N,)."""
    skipped = embeddings.skipped
    return np.ones(len(embeddings.values), bool) if skipped is None else ~skipped
