"""Every ordered pair of two images of one person: one of them stands in the gallery, the other is searched."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.metrics.score_tiles import Matrix

Number = TypeVar("Number", bound=np.number[Any])


@dataclass(frozen=True)
class MatePairs:
    """Pairs of one person's images.

    Attributes:
        gallery: Row of the image in the gallery, (M,).
        probe: Row of the image that is searched, (M,).
        person: Number of the person, (M,).
        groups: Rows of the images of each person; its pairs follow one another, by gallery image and then by probe.
    """

    gallery: Integers
    probe: Integers
    person: Integers
    groups: tuple[Integers, ...]

    @classmethod
    def of(cls, person: Integers, taken: Booleans) -> "MatePairs":
        """All pairs of different images.

        Args:
            person: Of each image, (N,).
            taken: Which images take part, (N,).
        """
        rows = np.flatnonzero(taken)
        rows = rows[np.argsort(person[rows], kind="stable")]
        groups = tuple(np.split(rows, np.flatnonzero(np.diff(person[rows])) + 1))
        left = [np.repeat(group, len(group) - 1) for group in groups]
        right = [_others(np.tile(group, (len(group), 1))) for group in groups]
        gallery, probe = (np.concatenate(side) for side in (left, right))
        return cls(gallery, probe, person[gallery], groups)

    def __len__(self) -> int:
        """Number of pairs, M."""
        return len(self.probe)

    def scores(self, gallery: Matrix, probe: Matrix) -> Floats:
        """Dot product of each pair, (M,), with the precision of the vectors."""
        parts = [_others(gallery[group] @ probe[group].T) for group in self.groups]
        return np.concatenate(parts).astype(np.float64)


def _others(square: NDArray[Number]) -> NDArray[Number]:
    """What stands off the diagonal, row by row."""
    return square[~np.eye(len(square), dtype=bool)]


def without_noise(vectors: Matrix, person: Integers, noisy: Booleans) -> Matrix:
    """Vectors in which each noisy image is replaced by the sum, at unit length, of the clean ones of its person.

    FaceX-Zoo's rule; zeros where a person has no clean image.

    Args:
        vectors: (N, D).
        person: Number of the person on each image, from 0, (N,).
        noisy: Which images are noisy, (N,).
    """
    if not noisy.any():
        return vectors
    sums = np.zeros((int(person.max()) + 1, vectors.shape[1]))
    np.add.at(sums, person[~noisy], vectors[~noisy].astype(np.float64))
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    replaced = vectors.copy()
    replaced[noisy] = (sums / np.where(norms > 0, norms, 1.0))[person[noisy]]
    return replaced
