"""A set scored by several processes: each scores a share of the images, and all get all scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facelab import distributed
from facelab.iqa.base import PixelScorer, Scorer
from facelab.iqa.scored_set import ReadableImages, ScoredSet, ScoringOptions
from facelab.progress import OnProgress
from facelab.quality.table import revision_of


class Share:
    """Some images of a set.

    Args:
        images: The set.
        rows: Which of its images.
    """

    def __init__(self, images: ReadableImages, rows: Sequence[int]) -> None:
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        """Number of this share's images."""
        return len(self._rows)

    def name(self, index: int) -> str:
        """Name of an image, as in the set."""
        return self._images.name(self._rows[index])

    def fingerprint(self) -> str:
        """A hash of which images these are."""
        return f"{self._images.fingerprint()} {self._rows}"

    def revision(self) -> str:
        """A hash of these images as they are now."""
        return f"{revision_of(self._images)} {self._rows}"

    def read(self, index: int) -> NDArray[np.uint8]:
        """An image of the set."""
        return self._images.read(self._rows[index])


def score_in_shares(
    scorer: Scorer, images: ReadableImages, options: ScoringOptions, progress: OnProgress | None = None
) -> ScoredSet:
    """Score all images of a set, each in one process. Every process of a distributed run must call this.

    A scorer that sees more than pixels, a table for one, gets the whole set, in the main process.

    Args:
        scorer: Equal in all processes.
        images: What to score.
        options: Device, batch size and threads of this process.
        progress: Told of this process's images.

    Returns:
        The scores of the whole set, in every process.

    Raises:
        DataError: If an image that can be read cannot be scored; every process raises it.
    """
    rank, processes = (distributed.rank(), distributed.world_size()) if isinstance(scorer, PixelScorer) else (0, 1)
    start, stop = distributed.class_range(len(images), rank, processes)
    done: list[ScoredSet] = []

    def score_share() -> None:
        if isinstance(scorer, PixelScorer) or distributed.is_main():
            share = images if processes == 1 else Share(images, range(start, stop))
            done.append(scorer.score_set(share, options, progress))

    # If one process fails, all of them stop here and do not wait for scores that never come.
    distributed.together(score_share)
    found = [part for parts in distributed.gather_objects([(start, one) for one in done]) for part in parts]
    failed = tuple((first + row, reason) for first, one in found for row, reason in one.failed)
    return ScoredSet(np.concatenate([one.values for _, one in found]), failed)
