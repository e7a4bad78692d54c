"""People of a training set that a test set has too."""

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.data.base import ImageSet
from facelab.doctor.findings import Finding, Rows
from facelab.doctor.identities import AMONG_ALL, Identities, Scale
from facelab.doctor.neighbours import nearest

IN_TEST_SET = 0.7
"""Part of the way from strangers to one person above which a label and a test image are one person."""


def find_overlap(
    identities: Identities,
    scale: Scale,
    test: tuple[str, ImageSet],
    vectors: NDArray[np.float32],
    rows: Rows,
    device: torch.device,
) -> Finding:
    """Labels whose mean is near to an image of a test set.

    Args:
        identities: The training set.
        scale: What its cosines mean.
        test: Name and images of the test set.
        vectors: Embeddings of its images that can be read, of unit length, (T, D).
        rows: Which those are, (T,).
        device: Where products are made.
    """
    near = nearest(identities.means(), vectors, 1, device)
    labels = np.flatnonzero(near.cosine[:, 0] > scale.surely(IN_TEST_SET, AMONG_ALL))
    found = near.rows[labels, 0]
    shown = identities.nearest_of_labels(labels, vectors[found])
    suspects = np.flatnonzero(np.isin(identities.labels, labels))
    note = f"{len(labels):,} labels, {len(suspects):,} images; test set {test[0]}."
    return Finding.of(
        "overlap", shown, rows[found], near.cosine[labels, 0], suspects, ascending=False, note=note, beside_in=test
    )
