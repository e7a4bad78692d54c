"""Many short byte strings without a Python object for each: one blob and the places where they end."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class PackedNames(Sequence[bytes]):
    """An immutable sequence of N byte strings, at 8 bytes each beside their content.

    Args:
        blob: All strings, one after the other.
        ends: End of each string in ``blob``, int64, (N,), not decreasing.
    """

    def __init__(self, blob: bytes, ends: NDArray[np.int64]) -> None:
        self._blob = blob
        self._ends = ends

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "PackedNames":
        """Pack ``names`` in their order; an iterator is consumed without a list of all of them."""
        blob = bytearray()
        ends = np.fromiter((_append(blob, name) for name in names), np.int64)
        return cls(bytes(blob), ends)

    def __len__(self) -> int:
        """Number of names."""
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedNames": ...
    def __getitem__(self, index: int | slice) -> "bytes | PackedNames":
        """Name ``index`` as bytes, from the end if negative, or the names of a slice.

        Raises:
            IndexError: If there is no such name.
        """
        if isinstance(index, slice):
            return PackedNames.of(self[row] for row in range(*index.indices(len(self))))
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(index)
        start = self._ends[row - 1] if row else 0
        return self._blob[start : self._ends[row]]


def _append(blob: bytearray, name: bytes) -> int:
    blob += name
    return len(blob)
