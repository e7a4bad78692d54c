"""A file that many threads read at once, by place, and that can be sent to another process."""

import os
import weakref
from pathlib import Path
from typing import Any

from facelab.errors import CorruptImage, DataError
from facelab.outside.file import open_regular


class RawFile:
    """Positional reads of one file; a copy in another process opens the file anew.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle, self.size = open_regular(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}).") from None
        weakref.finalize(self, os.close, self._handle)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``.

        Raises:
            CorruptImage: If the file ends earlier or the disk fails; the message says where.
        """
        try:
            data = os.pread(self._handle, size, offset)
        except OSError as error:
            raise CorruptImage(f"{self.path}: cannot be read at offset {offset} ({error.strerror}).") from None
        if len(data) != size:
            raise CorruptImage(
                f"{self.path}: ends at {offset + len(data)}, inside {size} bytes that begin at {offset}."
            )
        return data

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to open the file itself: its path and size in bytes."""
        return {"path": self.path, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file again.

        Raises:
            DataError: If its size has changed.
        """
        self.__init__(state["path"])  # type: ignore[misc]
        if self.size != state["size"]:
            raise DataError(f"{self.path}: has {self.size} bytes, but had {state['size']} when it was first opened.")
