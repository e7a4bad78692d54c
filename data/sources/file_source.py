"""What sources of separate image files share: reading by name, and a fingerprint of names and sizes."""

import hashlib
import logging
from abc import abstractmethod
from functools import cached_property

import numpy as np

from facelab.data.base import Pixels
from facelab.data.formats.files import ImageFiles
from facelab.data.formats.images import decode_image, hash_of
from facelab.data.sources.encoded_source import EncodedSource
from facelab.errors import CorruptImage

PROBES = 1000  # files whose size enters the fingerprint, spread evenly; a look at each of 100 million would take hours


class FileSource(EncodedSource):
    """A source whose images are files below one root.

    Attributes:
        files: The folder or archive.
    """

    files: ImageFiles

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of image ``index`` below the root."""

    def origin(self, index: int) -> str:
        """What named this image, for example a list and its line, ending in ``": "``; empty if nothing did."""
        return ""

    def warn_of_skipped(self) -> None:
        """One warning for each reason why something in the folder or archive was left out."""
        for sentence in self.files.skipped:
            logging.getLogger(__name__).warning(sentence)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored in its file.

        Raises:
            CorruptImage: If the file is missing or cannot be read.
        """
        try:
            return self.files.read(self.name(index))
        except CorruptImage as error:
            raise CorruptImage(f"{self.origin(index)}{error}") from None

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        data = self.encoded(index)
        try:  # by its own place alone, because the line of a list is slow to find
            pixels = decode_image(data, self.files.where(self.name(index)), known=index in self._seen)
        except CorruptImage as error:
            raise CorruptImage(f"{self.origin(index)}{error}") from None
        self._seen.add(index)
        return pixels

    def location(self, index: int) -> str:
        """The image's path, after what named it."""
        return f"{self.origin(index)}{self.files.where(self.name(index))}"

    def fingerprint(self) -> str:
        """Hash of all names and labels and of the sizes of up to 1000 files."""
        return self._fingerprint

    def revision(self) -> str:
        """Hash of all names and labels, and of the stamps of all files."""
        names = (self.name(index) for index in range(len(self)))
        return hash_of([self.names_digest(), self.files.revision(names)])

    @cached_property
    def _fingerprint(self) -> str:
        sizes = (str(self.files.size(self.name(index))) for index in self.probes())
        return hash_of([self.names_digest(), *sizes])

    def names_digest(self) -> str:
        """A hash of all names and labels, in their order."""
        names = hash_of(self.name(index) for index in range(len(self)))
        return names + hashlib.blake2b(np.ascontiguousarray(self.labels).data, digest_size=16).hexdigest()

    def people_hash(self) -> str:
        """Hash of all names and labels."""
        return self.names_digest()

    def probes(self) -> list[int]:
        """Up to 1000 images spread evenly over the source, the first and the last among them."""
        return [int(index) for index in np.unique(np.linspace(0, len(self) - 1, PROBES).astype(np.int64))]
