"""A file that many threads read at once, by place, and that can be sent to another process."""

import os
import weakref

from facelab.data.formats.reopened import ReopenedFile
from facelab.errors import CorruptImage
from facelab.outside.file import open_regular


class RawFile(ReopenedFile):
    """Positional reads of one file; a copy in another process opens the file anew.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be opened.
    """

    def _open(self) -> int:
        self._handle, size = open_regular(self.path)
        weakref.finalize(self, os.close, self._handle)
        return size

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``.

        Raises:
            CorruptImage: If the file ends earlier or the disk fails; the message says where.
        """
        try:
            # pread() has an offset of its own and leaves the file's alone, so threads share one handle without a lock.
            data = os.pread(self._handle, size, offset)
        except OSError as error:
            raise CorruptImage(f"{self.path}: cannot be read at offset {offset} ({error.strerror}).") from None
        if len(data) != size:
            raise CorruptImage(
                f"{self.path}: ends at {offset + len(data)}, inside {size} bytes that begin at {offset}."
            )
        return data
