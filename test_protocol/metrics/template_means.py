"""Weighted means of the images of each template, for galleries and probes of own data."""

import numpy as np
from scipy.sparse import csr_array

from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics.fusion import Joining, vectors
from facelab.test_protocol.metrics.metrics import Booleans, Integers
from facelab.test_protocol.metrics.pair_scores import unit
from facelab.test_protocol.metrics.score_tiles import Matrix
from facelab.test_protocol.metrics.templates import Weighting, quality_weights


def template_means(
    embeddings: Embeddings,
    rows: Integers,
    template: Integers,
    taken: Booleans,
    *,
    count: int,
    flip: bool,
    fusion: Joining,
    weighting: Weighting,
) -> Matrix:
    """The vector of each template, unit length, float32, (T, D); zeros where no image is left.

    Args:
        embeddings: Of all images.
        rows: The image of each line of a list, (L,).
        template: Number of each line's template, (L,).
        taken: Which lines take part, (L,).
        count: T.
        flip: Whether mirrored images are joined; see `vectors`.
        fusion: How.
        weighting: Weight of an image's vector of unit length: ``none`` for 1, ``norm`` for the length that it had,
            ``quality`` for its quality score.

    Raises:
        ConfigError: If quality scores are wanted and there are none, or a high one means a bad image.
        DataError: If an embedding is not finite, mirrored ones are wanted and missing, or a quality score is below 0.
    """
    lines = np.flatnonzero(taken)
    faces = vectors(embeddings, flip, fusion, rows[lines], raw=weighting == "norm")
    weight = quality_weights(embeddings)[rows[lines]] if weighting == "quality" else np.ones(len(lines))
    matrix = csr_array((weight.astype(np.float32), (template[lines], np.arange(len(lines)))), shape=(count, len(lines)))
    return unit((matrix @ faces).astype(np.float64)).astype(np.float32)
