"""What sources of encoded images share: decoding, and which images are known to be whole."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Pixels, Source
from facelab.data.formats.images import decode_image
from facelab.data.sources.seen_images import SeenImages


class EncodedSource(Source):
    """A source that has its images as encoded files."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored.

        Raises:
            CorruptImage: If this image is damaged.
            DataError: If it cannot be read for another reason, which others would meet too.
        """

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        pixels = decode_image(self.encoded(index), self.location(index), known=index in self._seen)
        self._seen.add(index)
        return pixels

    @cached_property
    def _seen(self) -> SeenImages:
        """Images that an epoch after the first does not look through for holes again."""
        return SeenImages(len(self))

    def __getstate__(self) -> dict[str, Any]:
        """Everything, with `_seen` even if nothing was read yet: what the copy forks must share it."""
        return {**vars(self), "_seen": self._seen}


def cut_runs(begins: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where runs of neighbouring images begin that lie within so many bytes.

    Args:
        begins: Where each image begins, int64, (N,), ascending, N above 0.
        length: Bytes of a run.

    Returns:
        Number of the first image of each run, int64, ascending from 0.
    """
    return np.flatnonzero(np.diff((begins - begins[0]) // length, prepend=-1))
