"""Which images were read before and found whole, known to all processes that were forked since."""

import mmap
from typing import Any


class SeenImages:
    """One flag for each image of a source.

    The flags lie in memory that forked processes share: what one of those that read finds whole, none of them looks
    through again. A copy in another process starts with none.

    Args:
        count: Number of images.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._flags = mmap.mmap(-1, max(count, 1))

    def __contains__(self, index: int) -> bool:
        """Whether image ``index`` was seen."""
        return self._flags[index] != 0

    def add(self, index: int) -> None:
        """Image ``index`` was seen."""
        self._flags[index] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """The number alone."""
        return SeenImages, (self._count,)
