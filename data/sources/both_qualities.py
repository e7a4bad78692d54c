"""Each person in high and in low quality."""

from facelab.data.base import SOURCES
from facelab.data.sources.concat import Concat
from facelab.data.sources.degradation import Degraded
from facelab.data.sources.inner_source import SourceSpec, open_inner
from facelab.data.transforms.low_resolution import Recipe
from facelab.progress import OnProgress


@SOURCES.register("BothQualities")
class BothQualities(Concat):
    """The images of a source and low-resolution versions of the same people, made from them where none are given.

    It is ``Concat`` with ``share_labels: true`` of the source and of ``low``, else of `Degraded`.

    Args:
        source: Good images, written as in a run: ``{ImageFolder: {root: …}}``.
        low: Bad images of the same people in the same order, written likewise; None makes a version of each good one.
        sizes: Shorter side of the versions in pixels, least and greatest; see `Degradation`.
        recipe: How they are made, see `Degradation`.
        seed: Chooses their random numbers.
        size: Passed on to sources that draw their images, in pixels.
        progress: Likewise; called with (images done, images in all).

    Raises:
        ConfigError: If a source cannot be built, the sizes are wrong, or ``low`` has another number of people.
    """

    def __init__(
        self,
        source: SourceSpec,
        low: SourceSpec | None = None,
        sizes: tuple[int, int] = (8, 24),
        recipe: Recipe = "camera",
        seed: int = 0,
        size: int | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        high = open_inner(source, size, progress)
        super().__init__(
            [high, Degraded(high, sizes, seed, recipe=recipe) if low is None else low], True, size, progress
        )
