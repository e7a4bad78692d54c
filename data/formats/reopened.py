"""Files that stay open, and that another process opens anew."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from facelab.errors import DataError


class ReopenedFile(ABC):
    """A file that is open for reading; a copy in another process opens the file anew, if it is still the same.

    Args:
        path: The file.

    Attributes:
        path: The file.
        size: Its size in bytes.

    Raises:
        DataError: If it cannot be opened.
    """

    size: int

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.size = self._open()
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}).") from None

    @abstractmethod
    def _open(self) -> int:
        """Open `path`, and return its size in bytes."""

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
