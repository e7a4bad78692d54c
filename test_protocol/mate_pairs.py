"""Every ordered pair of two images of one person: one of them stands in the gallery, the other is searched."""

from dataclasses import dataclass

import numpy as np

from facelab.test_protocol.metrics import Booleans, Floats, Integers
from facelab.test_protocol.score_tiles import Matrix


@dataclass(frozen=True)
class MatePairs:
    """Pairs of one person's images.

    Attributes:
        gallery: Row of the image in the gallery, (M,).
        probe: Row of the image that is searched, (M,).
        person: Number of the person, (M,).
    """

    gallery: Integers
    probe: Integers
    person: Integers

    @classmethod
    def of(cls, person: Integers, taken: Booleans) -> "MatePairs":
        """All pairs of different images.

        Args:
            person: Of each image, (N,).
            taken: Which images take part, (N,).
        """
        rows = np.flatnonzero(taken)
        rows = rows[np.argsort(person[rows], kind="stable")]
        groups = np.split(rows, np.flatnonzero(np.diff(person[rows])) + 1)
        pairs = [np.stack(np.nonzero(~np.eye(len(group), dtype=bool))) for group in groups]
        left, right = (
            np.concatenate([group[pair[side]] for group, pair in zip(groups, pairs, strict=True)]) for side in (0, 1)
        )
        return cls(left, right, person[left])

    def __len__(self) -> int:
        return len(self.probe)

    def scores(self, gallery: Matrix, probe: Matrix) -> Floats:
        """Dot product of each pair, (M,), with the precision of the vectors; a part of the pairs at a time."""
        result = np.empty(len(self))
        for start in range(0, len(self), 8192):
            part = slice(start, start + 8192)
            result[part] = np.einsum("md,md->m", gallery[self.gallery[part]], probe[self.probe[part]])
        return result


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
