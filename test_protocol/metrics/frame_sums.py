"""Templates of many frames: weighted sums of embeddings by group, in memory that does not grow with the frames."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import Embeddings, FloatArray
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.metrics.pair_scores import unit

Weighting = Literal["norm", "norm2", "unit", "quality"]
WEIGHTINGS: tuple[Weighting, ...] = ("norm", "norm2", "unit", "quality")
CHUNK = 256  # embeddings in float64 at once: so many stay in the processor's cache


def weighted_sums(
    embeddings: Embeddings,
    group: Integers,
    groups: int,
    weighting: Weighting,
    flip: bool,
    location: Callable[[int], str],
    chunk: int = CHUNK,
) -> Floats:
    """Sum of the weighted embeddings of each group; its direction is that of their weighted mean.

    An embedding has the weight of its norm (``norm``: it is added as it is), of its squared norm (``norm2``), of 1
    (``unit``), or its direction that of its quality score (``quality``; where a lower score is better, of its distance
    to the worst one). Images that could not be read add nothing.

    Args:
        embeddings: Of N images, finite (see `check_embeddings`).
        group: Number of each image's group, (N,).
        groups: G.
        weighting: Weight of an embedding.
        flip: Whether the embeddings of the mirrored images are added before.
        location: Where an image lies, for messages.
        chunk: Embeddings that are taken at once.

    Returns:
        (G, D), zeros for a group without images.

    Raises:
        DataError: If mirrored images or quality scores are wanted and missing, or a weight is negative or not finite.
    """
    mirrored = _mirrored(embeddings) if flip else None
    weights = _quality_weights(embeddings, location) if weighting == "quality" else None
    sums = np.zeros((groups, embeddings.values.shape[1]))
    for start in range(0, len(group), chunk):
        rows = slice(start, start + chunk)
        values = embeddings.values[rows].astype(np.float64)
        if mirrored is not None:
            values += mirrored[rows]
        if embeddings.skipped is not None:
            values[embeddings.skipped[rows]] = 0.0
        _add_runs(sums, group[rows], _weighted(values, weighting, None if weights is None else weights[rows]))
    return sums


def longest_rows(values: FloatArray, group: Integers, groups: int, chunk: int = CHUNK) -> Integers:
    """Row of the longest embedding of each group, (G,); -1 for a group without images."""
    parts = [np.linalg.norm(values[start : start + chunk], axis=1) for start in range(0, len(values), chunk)]
    order = np.lexsort((np.concatenate(parts), group))
    rows = np.full(groups, -1, np.int64)
    rows[group[order]] = order  # of one group the last one stays
    return rows


def _add_runs(sums: Floats, group: Integers, values: Floats) -> None:
    """Add rows to the sums of their groups; images of one group mostly follow each other."""
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    # add.at() is slow for each row, so it gets the sums of runs; it is needed where a group comes again later.
    np.add.at(sums, group[starts], np.add.reduceat(values, starts, axis=0))


def _weighted(values: Floats, weighting: Weighting, quality: Floats | None) -> Floats:
    if weighting == "norm":
        return values
    if weighting == "norm2":
        return np.asarray(values * np.linalg.norm(values, axis=1, keepdims=True))
    return unit(values) if quality is None else unit(values) * quality[:, None]


def _mirrored(embeddings: Embeddings) -> FloatArray:
    if embeddings.flipped is None:
        raise DataError("flip is on, but there are no embeddings of the mirrored images.")
    return embeddings.flipped


def _quality_weights(embeddings: Embeddings, location: Callable[[int], str]) -> Floats:
    """Weights from quality scores, (N,), the better the heavier."""
    if embeddings.quality_scores is None or embeddings.quality is None:
        raise DataError("frames are to be weighted by quality, but the images have no quality scores.")
    count = len(embeddings.quality_scores)
    if count != len(embeddings.values):
        raise DataError(f"{len(embeddings.values)} images need as many quality scores, got {count}.")
    unread = np.array([row for row, _ in embeddings.failed], np.int64)
    weight = np.array(embeddings.quality, np.float64)
    weight[unread] = 0.0  # their embeddings are zeros
    if embeddings.scorer is not None and not embeddings.scorer.higher_is_better:
        # Quality is then the negative of the score: from the worst one upward, no weight is below 0.
        weight -= np.nanmin(weight, initial=0.0)
    usable: Booleans = np.isfinite(weight) & (weight >= 0.0)
    if not usable.all():
        row = int(np.argmin(usable))
        given = embeddings.quality_scores[row]
        raise DataError(f"{location(row)}: its quality score is {given:g}, but a weight must be finite and at least 0.")
    return weight
