"""Connected components, without a loop over rows."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def components(count: int, left: Rows, right: Rows) -> Rows:
    """The smallest row that each of ``count`` rows is linked with, directly or through others, (count,)."""
    root = np.arange(count)
    while len(left):
        lower = np.minimum(root[left], root[right])
        np.minimum.at(root, root[left], lower)
        np.minimum.at(root, root[right], lower)
        # Each chain of roots is halved until it is one step, so that long chains of rows take few rounds.
        while not np.array_equal(further := root[root], root):
            root = further
        open_links = root[left] != root[right]
        left, right = left[open_links], right[open_links]
    return root
