"""How good a set is to train on, by one number: Intrinsic Quality (ICML 2026, arXiv:2605.29720)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facelab.doctor.findings import Rows
from facelab.doctor.neighbours import Neighbours

CONSISTENCY_WEIGHT = 0.2
LEAST_IMAGES = 10_000
CHUNK = 4096


@dataclass(frozen=True)
class IntrinsicQuality:
    """Intrinsic Quality and its two parts.

    Attributes:
        consistency: Mean share of the ten nearest neighbours that have the same label, 0..1.
        richness: Logarithm of the effective rank of the embeddings' covariance by that of the largest rank, 0..1.
    """

    consistency: float
    richness: float

    @property
    def value(self) -> float:
        """``0.2 consistency + 0.8 richness``, 0..1."""
        return CONSISTENCY_WEIGHT * self.consistency + (1 - CONSISTENCY_WEIGHT) * self.richness


def neighbour_share(labels: Rows, neighbours: Neighbours) -> NDArray[np.float32]:
    """Share of each image's neighbours with the same label, 0..1, (N,)."""
    return np.asarray((labels[neighbours.rows] == labels[:, None]).mean(axis=1, dtype=np.float32))


def intrinsic_quality(vectors: NDArray[np.float32], labels: Rows, neighbours: Neighbours) -> IntrinsicQuality:
    """Intrinsic Quality of a set.

    Args:
        vectors: Embeddings of unit length, (N, D), N from 2.
        labels: (N,).
        neighbours: The ten nearest of each.
    """
    return IntrinsicQuality(float(neighbour_share(labels, neighbours).mean()), _richness(vectors))


def _richness(vectors: NDArray[np.float32]) -> float:
    count, width = vectors.shape
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for start in range(0, count, CHUNK):
        centred = vectors[start : start + CHUNK] - mean
        covariance += centred.T @ centred
    share = np.linalg.eigvalsh(covariance).clip(min=0)
    if not share.sum() or min(count, width) < 2:
        return 0.0
    share = share[share > 0] / share.sum()
    return float(-(share * np.log(share)).sum() / np.log(min(count, width)))
