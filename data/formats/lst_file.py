"""im2rec's list: ``key <tab> label … <tab> path`` on each line."""

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from facelab.data.formats.images import hash_of
from facelab.data.formats.names import PackedNames
from facelab.errors import DataError
from facelab.outside.file import read_regular

EXACT = 1 << 53  # float64 tells whole numbers apart up to here


class LstFile(Sequence[bytes]):
    """The paths of a ``.lst`` file in its order. The class is the first label; blank lines are skipped.

    Args:
        path: The list.

    Raises:
        DataError: If the list is missing, empty or has a bad line; the message gives its number.

    Attributes:
        labels: Label of each line, int64, (N,).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            lines = read_regular(path).removeprefix(codecs.BOM_UTF8).split(b"\n")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
        rows = [(number, *self._row(number, line)) for number, line in enumerate(lines, 1) if line.strip()]
        if not rows:
            raise DataError(f"{path}: the list names no image.")
        self._lines = np.array([number for number, _, _ in rows])
        self.labels = np.array([label for _, label, _ in rows], np.int64)
        self._names = PackedNames.of(name for _, _, name in rows)

    def _row(self, number: int, line: bytes) -> tuple[int, bytes]:
        fields = line.strip().split(b"\t")
        try:
            # im2rec writes labels as floating-point numbers.
            label = float(fields[1])
            if len(fields) > 2 and 0 <= label < EXACT and label.is_integer():
                return int(label), _with_slashes(fields[-1].strip())
        except (IndexError, ValueError, OverflowError):
            pass  # refused below
        shown = line.decode("utf-8", "replace").strip()[:80]
        raise DataError(f"{self.path} line {number}: {shown!r} is not 'key<tab>label<tab>path' with a class as label.")

    def __len__(self) -> int:
        """Number of images in the list."""
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> PackedNames: ...
    def __getitem__(self, index: int | slice) -> bytes | PackedNames:
        """Name of image ``index`` as bytes, or the names of a slice."""
        return self._names[index]

    def line(self, index: int) -> int:
        """Number of the line, from 1, that names image ``index``."""
        return int(self._lines[index])

    def digest(self) -> str:
        """A hash (32 hex digits) of paths and labels."""
        rows = zip(self._names, self.labels.tolist(), strict=True)
        return hash_of(f"{name.decode('utf-8', 'surrogateescape')}\t{label}" for name, label in rows)


def _with_slashes(name: bytes) -> bytes:
    return name if b"/" in name else name.replace(b"\\", b"/")
