"""Templates: all images of a person that are to be compared as one, joined into one embedding.

The rule of IJB-B and IJB-C, the same in all published evaluators: image features are averaged within a medium (an
image, or the frames of a video), the means are added over the media, and the sum is brought to unit length. Each option
only changes the weight of an image, so all templates are one product of a sparse matrix with the embeddings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from facelab.errors import ConfigError, DataError, one_of
from facelab.test_protocol.base import Embeddings, FloatArray
from facelab.test_protocol.metrics.metrics import Booleans, Integers

Weighting = Literal["none", "norm", "quality"]
WEIGHTINGS: tuple[Weighting, ...] = ("none", "norm", "quality")
BLOCK = 8192


@dataclass(frozen=True)
class FeatureRules:
    """What the feature of an image is, before images are joined.

    InsightFace's names for the first three are ``N1 D1 F1`` (and 0 for off).

    Attributes:
        norm_score: Whether an embedding keeps its norm, which then weighs the image; otherwise it gets unit length.
        detector_score: Whether it is multiplied by the detector's score.
        flip: Whether the embedding of the mirrored image is added first, both as they are.
        weighting: One more factor: ``norm`` the norm of the embedding (with ``norm_score`` it counts squared, as in
            PETALface's IJB-S), ``quality`` the quality score.

    Raises:
        ConfigError: If ``weighting`` is unknown.
    """

    norm_score: bool = True
    detector_score: bool = True
    flip: bool = True
    weighting: Weighting = "none"

    def __post_init__(self) -> None:
        one_of("weighting", self.weighting, WEIGHTINGS)

    def options(self) -> dict[str, Any]:
        """The settings for a report."""
        return dict(vars(self))


@dataclass(frozen=True)
class Grouping:
    """Which images make a template.

    Attributes:
        template: Row of each image's template, from 0, (N,).
        media: Number of each image's medium, (N,); the same number in two templates means two media.
        count: Number of templates, T.
    """

    template: Integers
    media: Integers
    count: int


@dataclass(frozen=True)
class Templates:
    """Joined embeddings.

    Attributes:
        values: Unit length, float32, (T, D); zeros where there is nothing to join.
        empty: Templates of which no image is left, (T,).
    """

    values: FloatArray
    empty: Booleans


def join_templates(
    embeddings: Embeddings, grouping: Grouping, rules: FeatureRules, detector_score: FloatArray | None = None
) -> Templates:
    """One embedding for each template. Images in ``embeddings.skipped`` are left out of it.

    Memory beside the embeddings: the templates, and a block of images.

    Args:
        embeddings: Raw, of N images.
        grouping: Which images make a template.
        rules: What the feature of an image is.
        detector_score: Of each image, (N,).

    Raises:
        ConfigError: If ``rules`` want quality or detector scores that are not there.
        DataError: If an embedding is not finite, or mirrored images are wanted and missing.
    """
    weights = image_weights(embeddings, rules, detector_score)
    matrix, empty = _joining(grouping, weights, embeddings.skipped)
    # Joining is linear: the mirrored images are joined by themselves, and no sum of N embeddings is kept.
    values = matrix @ embeddings.values
    if rules.flip and embeddings.flipped is not None:
        values += matrix @ embeddings.flipped
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(norms > 0, norms, 1.0)
    return Templates(values, empty)


def image_weights(
    embeddings: Embeddings, rules: FeatureRules, detector_score: FloatArray | None = None
) -> NDArray[np.float32]:
    """The factor that makes the feature of each image out of its embedding, (N,).

    Raises:
        ConfigError: If ``rules`` want quality or detector scores that are not there.
        DataError: If an embedding is not finite, or mirrored images are wanted and missing.
    """
    norms = np.concatenate([_norms(start, block) for start, block in _blocks(embeddings, rules.flip)])
    weights = np.ones_like(norms) if rules.norm_score else 1.0 / np.where(norms > 0, norms, 1.0)
    if rules.detector_score:
        if detector_score is None:
            raise ConfigError("detector_score is on, but there are no detector scores; switch it off.")
        weights *= detector_score
    if rules.weighting == "norm":
        weights *= norms
    if rules.weighting == "quality":
        weights *= quality_weights(embeddings)
    return np.asarray(weights, np.float32)


def quality_weights(embeddings: Embeddings) -> FloatArray:
    """The quality score of each image as its weight, (N,); what skipped images have is not looked at.

    Raises:
        ConfigError: If there are no scores, or a high one means a bad image.
        DataError: If a score is not finite or below 0.
    """
    scores = embeddings.quality_scores
    if scores is None:
        raise ConfigError("weighting is 'quality', but the images have no quality scores; take 'none' or 'norm'.")
    if embeddings.scorer is not None and not embeddings.scorer.higher_is_better:
        raise ConfigError(
            f"weighting is 'quality', but a high score of {embeddings.scorer.name} means a bad image; "
            "take scores of which a higher one is better."
        )
    used = np.ones(len(scores), bool) if embeddings.skipped is None else ~embeddings.skipped
    wrong = used & ~(np.isfinite(scores) & (scores >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"the quality score of image {row} (from 0) is {scores[row]:g}; a weight must be 0 or more.")
    return scores


def _blocks(embeddings: Embeddings, flip: bool) -> Iterator[tuple[int, FloatArray]]:
    values, flipped = embeddings.values, embeddings.flipped
    if flip and flipped is None:
        raise DataError("flip is on, but there are no embeddings of the mirrored images.")
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        yield start, block if not flip or flipped is None else block + flipped[start : start + BLOCK]


def _norms(start: int, block: FloatArray) -> NDArray[np.float32]:
    norms = np.sqrt(np.einsum("nd,nd->n", block, block))
    # A value that is not finite makes its norm so: no second pass over the values looks for them.
    finite = np.isfinite(norms)
    if not finite.all():
        raise DataError(f"the embedding of image {start + int(np.argmin(finite))} (from 0) is not finite.")
    return np.asarray(norms, np.float32)


def _joining(
    grouping: Grouping, weights: NDArray[np.float32], skipped: Booleans | None
) -> tuple["csr_array[Any, Any]", Booleans]:
    """The matrix (T, N) that joins embeddings: the weight of an image over the number of images in its medium."""
    rows = np.arange(len(weights)) if skipped is None else np.flatnonzero(~skipped)
    template, media = grouping.template[rows], np.unique(grouping.media[rows], return_inverse=True)[1]
    # One key for each medium of each template: media are numbered from 0 to below N here.
    _, place, size = np.unique(template * np.int64(len(weights)) + media, return_inverse=True, return_counts=True)
    shape = (grouping.count, len(weights))
    matrix = csr_array(((weights[rows] / size[place]).astype(np.float32), (template, rows)), shape=shape)
    return matrix, np.bincount(template, minlength=grouping.count) == 0
