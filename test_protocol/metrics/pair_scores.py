"""From raw embeddings to scores of pairs: joining mirrored images, unit length, cosines and distances."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import ImageSet
from facelab.errors import ConfigError, DataError, one_of
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics.metrics import (
    Booleans,
    Floats,
    FoldResult,
    Integers,
    Roc,
    eer_threshold,
    kfold_accuracy,
    roc,
)

Thresholds = Literal["exact", "facexzoo", "insightface", "magface"]
Fusion = Literal["sum", "normalised_sum"]
RULES: tuple[Thresholds, ...] = ("exact", "facexzoo", "insightface", "magface")
Reject = Literal["quality", "norm"]
FUSIONS: tuple[Fusion, ...] = ("sum", "normalised_sum")
DEFAULT_FARS = (1e-3, 1e-2, 1e-1)
CHECKED_AT_ONCE = 1 << 14
ROWS_AT_ONCE = 256  # a megabyte of 512-d embeddings: stays in a core's cache


@dataclass(frozen=True)
class Rules:
    """How pairs are scored and counted.

    Attributes:
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How: ``sum`` adds them as they are (InsightFace), ``normalised_sum`` gives each unit length before
            (PETALface).
        thresholds: ``exact`` for the clean definition alone; ``facexzoo``, ``insightface`` or ``magface`` put the
            number of that project's evaluator first, with the clean one beside it.
        fars: False accept rates to measure the true accept rate at.
        reject: What error versus reject takes for quality: the scores of the images, where there are some, or the
            ``norm`` of the embeddings.

    Raises:
        ConfigError: If a name is unknown, a rate is not in (0, 1], or norms are wanted that ``fusion`` takes away.
    """

    flip: bool = False
    fusion: Fusion = "sum"
    thresholds: Thresholds = "exact"
    fars: tuple[float, ...] = DEFAULT_FARS
    reject: Reject = "quality"

    def __post_init__(self) -> None:
        one_of("fusion", self.fusion, FUSIONS)
        one_of("reject", self.reject, ("quality", "norm"))
        one_of("thresholds", self.thresholds, RULES)
        for far in self.fars:
            if not 0.0 < far <= 1.0:
                raise ConfigError(f"fars: {far!r} is not in (0, 1].")
        if self.reject == "norm" and self.flip and self.fusion == "normalised_sum":
            raise ConfigError("reject: norm needs the norms that fusion: normalised_sum takes away; take fusion: sum.")

    def options(self) -> dict[str, Any]:
        """The settings for a report."""
        fusion = {"fusion": self.fusion} if self.flip else {}
        reject = {"reject": "norm"} if self.reject == "norm" else {}
        return {"flip": self.flip, **fusion, "thresholds": self.thresholds, "fars": list(self.fars), **reject}


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with all that evaluators ask of them.

    Attributes:
        fused: One raw embedding for each image, float32 or float64, (N, D); all is computed in float64.
        pairs: Rows of ``fused``, (P, 2).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,).
        mean_norm: Mean norm of the raw embeddings of all images in pairs, mirrored ones included.
    """

    fused: NDArray[Any]
    pairs: Integers
    same: Booleans
    fold: Integers
    mean_norm: float

    @classmethod
    def of(cls, embeddings: Embeddings, pairs: Integers, same: Booleans, fold: Integers, rules: Rules) -> "ScoredPairs":
        """Join the embeddings as ``rules`` say.

        Raises:
            DataError: If a value is not finite, or mirrored images are wanted and missing.
        """
        parts = [part for part in (embeddings.values, embeddings.flipped if rules.flip else None) if part is not None]
        norms = [_lengths(part) for part in parts]
        for length in norms:
            if not np.isfinite(length).all():
                raise DataError(f"the embedding of image {int(np.argmin(np.isfinite(length)))} (from 0) is not finite.")
        mean_norm = float(np.mean([length[pairs] for length in norms]))
        return cls(fuse(embeddings, rules), pairs, same, fold, mean_norm)

    @cached_property
    def cosine(self) -> Floats:
        """Cosine of each pair, (P,)."""
        return np.concatenate([np.einsum("pd,pd->p", left, right) for left, right in self._unit_sides()])

    @cached_property
    def roc(self) -> Roc:
        """The curve of true against false accepts by cosine; there must be pairs of both classes."""
        return roc(self.cosine, self.same)

    @cached_property
    def fold_result(self) -> FoldResult | None:
        """Accuracy over folds by cosine, or None if all pairs are in one fold."""
        return kfold_accuracy(self.cosine, self.same, self.fold) if (self.fold != self.fold[0]).any() else None

    @cached_property
    def decision_threshold(self) -> Floats:
        """The cosine that each pair must reach, (P,): that of its fold, without folds that of the equal error rate."""
        if self.fold_result is None:
            return np.full(len(self.pairs), eer_threshold(self.roc))
        return self.fold_result.threshold[np.unique(self.fold, return_inverse=True)[1]]

    @cached_property
    def squared_distance(self) -> Floats:
        """Squared Euclidean distance of the normalised embeddings of each pair, (P,)."""
        return np.concatenate([np.square(left - right).sum(axis=1) for left, right in self._unit_sides()])

    @property
    def raw_sides(self) -> tuple[Floats, Floats]:
        """Raw embeddings of the first and of the second images, (P, D) each."""
        left, right = (self.fused[self.pairs[:, side]].astype(np.float64) for side in (0, 1))
        return left, right

    @property
    def one_class(self) -> bool:
        """Whether all pairs are same pairs, or all are different pairs."""
        return bool(self.same.all() or not self.same.any())

    def _unit_sides(self) -> Iterator[tuple[Floats, Floats]]:
        """Normalised embeddings of the first and of the second images, some pairs at a time."""
        norms = _lengths(self.fused)[:, None]
        # A row of zeros, which may stand for an image that could not be read, has the cosine 0 with every other.
        norms[norms == 0.0] = 1.0
        for start in range(0, len(self.pairs), ROWS_AT_ONCE):
            left, right = self.pairs[start : start + ROWS_AT_ONCE].T
            yield self.fused[left] / norms[left], self.fused[right] / norms[right]


def fuse(embeddings: Embeddings, rules: Rules) -> NDArray[Any]:
    """One raw embedding for each image, (N, D), in float64 where mirrored images are joined.

    Raises:
        DataError: If mirrored images are wanted and missing.
    """
    if not rules.flip:
        return embeddings.values
    if embeddings.flipped is None:
        raise DataError("flip is on, but there are no embeddings of the mirrored images.")
    if rules.fusion == "normalised_sum":
        return unit(embeddings.values.astype(np.float64)) + unit(embeddings.flipped.astype(np.float64))
    # In float64 without a copy of either side in it.
    return np.asarray(np.add(embeddings.values, embeddings.flipped, dtype=np.float64))


def unit(values: Floats) -> Floats:
    """Rows with norm 1; a row of zeros stays zero."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1.0))


def check_count(embeddings: Embeddings, images: int) -> None:
    """Refuse embeddings that are not one row for each image.

    Raises:
        DataError: If there are more or fewer.
    """
    for part in (embeddings.values, embeddings.flipped):
        if part is not None and (part.ndim != 2 or len(part) != images):
            raise DataError(f"{images} images need as many embeddings, got an array of shape {part.shape}.")


def check_embeddings(embeddings: Embeddings, images: ImageSet) -> None:
    """Refuse embeddings that cannot be those of some images.

    Raises:
        DataError: If there are more or fewer, they have no length or mirrored images another one, or a value is not
            finite; the message names the image.
    """
    check_count(embeddings, len(images))
    width = embeddings.values.shape[1]
    if not width:
        raise DataError("the embeddings have no length: their array has no columns.")
    if embeddings.flipped is not None and embeddings.flipped.shape[1] != width:
        raise DataError(
            f"embeddings of {width} values, but {embeddings.flipped.shape[1]} values for the mirrored images: "
            "both must come from one network."
        )
    for part in (embeddings.values, embeddings.flipped):
        if part is None:
            continue
        for start in range(0, len(images), CHECKED_AT_ONCE):
            block = part[start : start + CHECKED_AT_ONCE]
            if np.isfinite(np.vdot(block, block)):  # one fast pass; a value that is not finite makes it so
                continue
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise DataError(f"the embedding of image {row} (from 0), {images.location(row)}, is not finite.")


def _lengths(values: NDArray[Any]) -> Floats:
    """Norm of each row in float64, (N,)."""
    blocks = (values[start : start + ROWS_AT_ONCE].astype(np.float64) for start in range(0, len(values), ROWS_AT_ONCE))
    return np.asarray(np.sqrt(np.concatenate([np.einsum("nd,nd->n", block, block) for block in blocks])))
