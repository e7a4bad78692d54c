"""From raw embeddings to scores of pairs: joining mirrored images, unit length, cosines and distances."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from facelab.data.base import ImageSet
from facelab.errors import ConfigError, DataError, one_of
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics import (
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
PAIRS_AT_ONCE = 1 << 16  # bounds the memory that gathered embeddings take


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
        fused: One raw embedding for each image, (N, D).
        pairs: Rows of ``fused``, (P, 2).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, (P,).
        mean_norm: Mean norm of the raw embeddings of all images in pairs, mirrored ones included.
    """

    fused: Floats
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
        norms = [np.linalg.norm(part.astype(np.float64), axis=1)[pairs] for part in parts]
        return cls(fuse(embeddings, rules), pairs, same, fold, float(np.mean(norms)))

    @cached_property
    def cosine(self) -> Floats:
        """Cosine of each pair, (P,)."""
        unit_length = unit(self.fused)
        parts = np.array_split(self.pairs, 1 + len(self.pairs) // PAIRS_AT_ONCE)
        return np.concatenate([np.einsum("pd,pd->p", unit_length[p[:, 0]], unit_length[p[:, 1]]) for p in parts])

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
        left, right = self._sides(unit(self.fused))
        return np.asarray(np.square(left - right).sum(axis=1))

    @property
    def raw_sides(self) -> tuple[Floats, Floats]:
        """Raw embeddings of the first and of the second images, (P, D) each."""
        return self._sides(self.fused)

    @property
    def one_class(self) -> bool:
        """Whether all pairs are same pairs, or all are different pairs."""
        return bool(self.same.all() or not self.same.any())

    def _sides(self, values: Floats) -> tuple[Floats, Floats]:
        return values[self.pairs[:, 0]], values[self.pairs[:, 1]]


def fuse(embeddings: Embeddings, rules: Rules) -> Floats:
    """One raw float64 embedding for each image, (N, D).

    Raises:
        DataError: If a value is not finite, or mirrored images are wanted and missing.
    """
    values = _finite(embeddings.values)
    if not rules.flip:
        return values
    if embeddings.flipped is None:
        raise DataError("flip is on, but there are no embeddings of the mirrored images.")
    mirrored = _finite(embeddings.flipped)
    if rules.fusion == "normalised_sum":
        return unit(values) + unit(mirrored)
    return values + mirrored


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
        for start in range(0, len(images), PAIRS_AT_ONCE):
            finite = np.isfinite(part[start : start + PAIRS_AT_ONCE]).all(axis=1)
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise DataError(f"the embedding of image {row} (from 0), {images.location(row)}, is not finite.")


def _finite(values: Any) -> Floats:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise DataError(f"the embedding of image {int(np.argmin(finite))} (from 0) is not finite.")
    return np.asarray(values, np.float64)
