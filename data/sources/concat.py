"""Several sources as one."""

import numpy as np

from facelab.data.base import SOURCES, Pixels, Source
from facelab.data.formats.alignment_record import joined_alignment
from facelab.data.formats.images import hash_of
from facelab.data.sources.inner_source import SourceSpec, open_inner
from facelab.errors import ConfigError
from facelab.progress import OnProgress


@SOURCES.register("Concat")
class Concat(Source):
    """Sources one after the other, each with classes of its own, or all with the same classes.

    BRIAR's two training sets have different people: their labels are set one after the other. FaceX-Zoo's masked set
    joins photographs and their masked twins: the same people, so ``share_labels: true``.

    Args:
        sources: The sources, written as in a run: ``{ImageList: {root: …, list_file: …}}``.
        share_labels: Class k is the same person in each source; they must have equally many classes.
        size: Passed on to sources that draw their images, in pixels.
        progress: Likewise; called with (images done, images in all).

    Raises:
        ConfigError: If there is no source, a source cannot be built, or classes are shared but differ in number.

    Attributes:
        sources: The sources.
    """

    def __init__(
        self,
        sources: list[SourceSpec],
        share_labels: bool = False,
        size: int | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        if not sources:
            raise ConfigError("source 'Concat' needs at least one source.")
        self.sources = [open_inner(given, size, progress) for given in sources]
        classes = [source.num_classes for source in self.sources]
        if share_labels and len(set(classes)) > 1:
            counts = ", ".join(map(str, classes))
            raise ConfigError(
                f"source 'Concat' shares labels, but its sources have different numbers of classes: {counts}."
            )
        self.num_classes = classes[0] if share_labels else sum(classes)
        before = [0] * len(classes) if share_labels else np.cumsum([0, *classes[:-1]]).tolist()
        labels = [source.labels + offset for source, offset in zip(self.sources, before, strict=True)]
        self.labels = np.concatenate(labels)
        self.alignment = joined_alignment(source.alignment for source in self.sources)
        self._starts = np.cumsum([0, *map(len, self.sources)])
        self.keeps_runs = any(source.keeps_runs for source in self.sources)
        if any(source.runs is not None for source in self.sources):
            runs = (np.arange(len(source)) if source.runs is None else source.runs for source in self.sources)
            self.runs = np.concatenate([start + part for start, part in zip(self._starts, runs, strict=False)])

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        source, row = self.part(index)
        return source.read(row)

    def location(self, index: int) -> str:
        """Where the image's own source has it."""
        source, row = self.part(index)
        return source.location(row)

    def name(self, index: int) -> str:
        """Name of the image in its own source."""
        source, row = self.part(index)
        return source.name(row)

    def part(self, index: int) -> tuple[Source, int]:
        """The source that has image ``index``, and its number there."""
        # A range counts negative numbers from the end, and raises IndexError as a sequence must.
        row = range(len(self))[index]
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.sources[number], row - int(self._starts[number])

    def people_hash(self) -> str:
        """Hash of what the sources say of theirs."""
        return hash_of([str(self.num_classes), *(source.people_hash() for source in self.sources)])

    def fingerprint(self) -> str:
        """Hash of the sources' fingerprints and labels."""
        return hash_of([str(self.num_classes), *(source.fingerprint() for source in self.sources)])

    def revision(self) -> str:
        """Hash of the sources as they are now and of their labels."""
        return hash_of([str(self.num_classes), *(source.revision() for source in self.sources)])
