"""A source seen by coarser cameras."""

import numpy as np

from facelab.data.base import SOURCES, Pixels, Source
from facelab.data.formats.images import hash_of
from facelab.data.loading.keyed_random import uniform
from facelab.data.sources.inner_source import SourceSpec, open_inner
from facelab.data.synthetic.source import reduce_resolution
from facelab.errors import ConfigError, in_range
from facelab.progress import OnProgress

LARGEST = 4096  # pixels a side; more is a mistyped number


@SOURCES.register("LowResolution")
class LowResolutionSource(Source):
    """Images of another source, each averaged down to a random resolution and enlarged to its old size again.

    Joined with the sharp images by ``Concat`` and ``share_labels: true`` it gives each person in both qualities.

    Args:
        source: The sharp images, written as in a run.
        resolution: Smallest and largest resolution, in pixels a side; each image has one of its own between them.
        seed: Chooses the resolutions.
        size: Passed on to a source that draws its images, in pixels.
        progress: Likewise; called with (images done, images in all).

    Raises:
        ConfigError: If the source cannot be built, or the resolutions are out of range or order.

    Attributes:
        source: The sharp images.
        resolutions: Resolution of each image in pixels, int64, (N,).
    """

    def __init__(
        self,
        source: SourceSpec,
        resolution: tuple[int, int] = (8, 16),
        seed: int = 0,
        size: int | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        low, high = resolution
        in_range("LowResolution resolution", low, 2, LARGEST)
        in_range("LowResolution seed", seed, 0, 2**63 - 1)
        if low > high:
            raise ConfigError(f"LowResolution resolution is [{low}, {high}]; the smaller one comes first.")
        self.source = open_inner(source, size, progress)
        self.labels, self.num_classes = self.source.labels, self.source.num_classes
        self.runs = self.source.runs
        self.alignment = self.source.alignment
        drawn = uniform(seed, np.arange(len(self.source)))
        self.resolutions = low + (drawn * (high - low + 1)).astype(np.int64)
        self._key = f"{low} {high} {seed}"

    def read(self, index: int) -> Pixels:
        """Image ``index`` at its resolution, in its old size, RGB, uint8, (H, W, 3)."""
        return reduce_resolution(self.source.read(index), int(self.resolutions[index]))

    def location(self, index: int) -> str:
        """Where the sharp image lies, and the resolution."""
        return f"{self.source.location(index)} at {self.resolutions[index]} pixels"

    def name(self, index: int) -> str:
        """Name of the sharp image, and the resolution."""
        return f"{self.source.name(index)} at {self.resolutions[index]} pixels"

    def people_hash(self) -> str:
        """Those of the inner source."""
        return self.source.people_hash()

    def fingerprint(self) -> str:
        """A hash (hex) of the sharp images and the resolutions."""
        return hash_of([self.source.fingerprint(), self._key])

    def revision(self) -> str:
        """A hash (hex) of the sharp images as they are now and the resolutions."""
        return hash_of([self.source.revision(), self._key])
