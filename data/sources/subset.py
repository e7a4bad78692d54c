"""Some images of another source: those that a list names."""

import hashlib
from pathlib import Path

import numpy as np

from facelab.data.base import SOURCES, Pixels, Source
from facelab.data.formats.images import hash_of
from facelab.data.sources.inner_source import SourceSpec, open_inner
from facelab.data.sources.selection import Entries, rows_of_list
from facelab.progress import OnProgress


@SOURCES.register("Subset")
class Subset(Source):
    """The images of another source that a list names, in their order; classes are numbered anew.

    A list of files needs none of it: ``facelab data subset`` writes a training list. Records and packed images have no
    other way: ``{Subset: {source: {RecordIO: {path: ms1m}}, images: doctor/keep.txt}}``.

    Args:
        source: The other source, written as in a run.
        images: ``path label`` lines with the names that the source has for its images, as ``facelab data doctor``
            writes them; see `rows_of_list`.
        size: Passed on to a source that draws its images, in pixels.
        progress: Likewise; called with (images done, images in all).

    Raises:
        ConfigError: If the source cannot be built.
        DataError: If the list is damaged, or names an image that the source has not.
    """

    def __init__(
        self, source: SourceSpec, images: Path, size: int | None = None, progress: OnProgress | None = None
    ) -> None:
        self.source = open_inner(source, size, progress)
        self.alignment, self.keeps_runs = self.source.alignment, self.source.keeps_runs
        names = [self.source.name(row).encode("utf-8", "surrogateescape") for row in range(len(self.source))]
        where = f"the source {type(self.source).__name__}"
        self.rows = rows_of_list(Entries(where, names, self.source.labels), Path(images))
        known, self.labels = np.unique(self.source.labels[self.rows], return_inverse=True)
        self.num_classes = len(known)

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        return self.source.read(self._row(index))

    def location(self, index: int) -> str:
        """Where the other source has it."""
        return self.source.location(self._row(index))

    def name(self, index: int) -> str:
        """What the other source calls it."""
        return self.source.name(self._row(index))

    def people_hash(self) -> str:
        """Hash of the other source's people and of the choice."""
        return hash_of([self.source.people_hash(), self._choice()])

    def fingerprint(self) -> str:
        """Hash of the other source and of the choice."""
        return hash_of([self.source.fingerprint(), self._choice()])

    def revision(self) -> str:
        """Hash of the other source as it is now, and of the choice."""
        return hash_of([self.source.revision(), self._choice()])

    def _row(self, index: int) -> int:
        return int(self.rows[index])

    def _choice(self) -> str:
        return hashlib.blake2b(self.rows.tobytes(), digest_size=16).hexdigest()
