"""Several verification sets as one protocol: their images are embedded in one pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import ImageSet, Pixels
from facelab.data.formats.alignment_record import joined_alignment
from facelab.test_protocol.base import Embeddings, Mistake, Protocol, Report
from facelab.test_protocol.metrics.pair_scores import check_count
from facelab.test_protocol.protocols.verification import Verification
from facelab.test_protocol.report.mistakes import worst_of


class JoinedImages(ImageSet):
    """Several image sets one after the other.

    Args:
        parts: The sets.
        prefixes: What stands before the names of each part's images, where the parts' own names may be equal.

    Attributes:
        starts: First row of each part, and the number of all images.
    """

    def __init__(self, parts: Sequence[ImageSet], prefixes: Sequence[str] = ()) -> None:
        self._parts, self._prefixes = parts, prefixes or [""] * len(parts)
        self.alignment = joined_alignment(part.alignment for part in parts)
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        """Number of images in all sets together."""
        return int(self.starts[-1])

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        place, row = self._place(index)
        return self._parts[place].read(row)

    def location(self, index: int) -> str:
        """Where the image lies in its part."""
        place, row = self._place(index)
        return self._parts[place].location(row)

    def name(self, index: int) -> str:
        """Name of the image in its part, behind the part's prefix."""
        place, row = self._place(index)
        return f"{self._prefixes[place]}{self._parts[place].name(row)}"

    def fingerprint(self) -> str:
        """The parts' hashes, joined."""
        return "+".join(part.fingerprint() for part in self._parts)

    def revision(self) -> str:
        """The parts' hashes of the images as they are now, joined."""
        return "+".join(part.revision() for part in self._parts)

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the part, and the row there."""
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        return place, index - int(self.starts[place])


class JointVerification(Protocol):
    """Base of protocols that are made of several verification sets.

    Args:
        name: Name in tables.
        parts: The sets; all of them want mirrored images, or none.
        prefixes: What stands before the names of each set's images in score tables.
    """

    images: JoinedImages

    def __init__(self, name: str, parts: Sequence[Verification], prefixes: Sequence[str] = ()) -> None:
        self.name = name
        self.parts = parts
        self.images = JoinedImages([part.images for part in parts], prefixes)
        self.flip = parts[0].flip

    def reports(self, embeddings: Embeddings) -> list[Report]:
        """The report of each part.

        Raises:
            DataError: If the embeddings do not fit.
        """
        check_count(embeddings, len(self.images))
        bounds = zip(self.images.starts[:-1], self.images.starts[1:], strict=True)
        rows = [slice(int(start), int(stop)) for start, stop in bounds]
        return [part.evaluate(embeddings.part(own)) for part, own in zip(self.parts, rows, strict=True)]


def joined_trials(reports: Sequence[Report]) -> dict[str, NDArray[Any]]:
    """The trials of several reports one after the other; people of different reports are different people."""
    joined = {name: np.concatenate([report.trials[name] for report in reports]) for name in reports[0].trials}
    for side in ("left", "right"):
        offset, numbers = 0, []
        for report in reports:
            own = report.trials[side]
            # Who is unknown stays unknown, and the next report's people begin after the largest number of this one.
            numbers.append(np.where(own < 0, own, own + offset).astype(np.int32))
            offset += 1 + max(int(report.trials[name].max(initial=-1)) for name in ("left", "right"))
        joined[side] = np.concatenate(numbers)
    return joined


def joined_mistakes(reports: Sequence[Report], starts: NDArray[np.int64]) -> tuple[Mistake, ...]:
    """The hardest errors of several reports, whose images begin at some rows."""
    return worst_of(
        replace(mistake, left=mistake.left + int(start), right=mistake.right + int(start))
        for report, start in zip(reports, starts[:-1], strict=True)
        for mistake in report.mistakes
    )
