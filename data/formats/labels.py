"""Labels as sources need them: 0..C-1, none empty."""

import numpy as np

from facelab.data.base import Labels
from facelab.errors import DataError


def checked_labels(labels: Labels, where: str, relabel: bool) -> tuple[Labels, int]:
    """Labels without gaps, and the number of classes C.

    Args:
        labels: Class of each image, int64, (N,), N > 0, each from 0.
        where: Names the source in messages.
        relabel: Number the classes anew in the order of their labels instead of refusing gaps.

    Returns:
        int64, (N,), each class of 0..C-1 at least once; and C.

    Raises:
        DataError: If a class has no image and ``relabel`` is false; the first such class is named.
    """
    largest = int(labels.max())
    missing = first_missing(labels)
    if missing > largest:
        return labels, largest + 1
    known, renumbered = np.unique(labels, return_inverse=True)
    if relabel:
        return renumbered.astype(np.int64, copy=False), len(known)
    raise DataError(
        f"{where}: class {missing} has no image; labels must be 0..{largest} without gaps, but only {len(known)} of "
        f"these {largest + 1} classes occur. Set relabel: true to number the classes anew."
    )


def first_missing(labels: Labels) -> int:
    """The smallest number from 0 that is no label; (N,) non-negative labels, however large, need N + 1 bytes."""
    # N labels cannot cover 0..N, so the first gap is at N or before, and larger labels need no place.
    present = np.zeros(len(labels) + 1, bool)
    present[labels[labels < len(present)]] = True
    return int(np.argmin(present)) if not present.all() else len(present)
