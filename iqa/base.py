"""What a scorer is: pixels or a set of images -> one number each, with a declared range and direction."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import DataError
from facelab.iqa.image_set import score_images
from facelab.iqa.scored_set import ReadableImages, ScoredSet, ScoringOptions
from facelab.progress import OnProgress
from facelab.quality.card import ScorerCard
from facelab.registry import Registry


class Scorer(ABC):
    """Gives each image a number for its quality. Options are constructor arguments.

    Attributes:
        card: Name, version, range and direction of the scores.
    """

    citation: ClassVar[Citation | None] = None
    card: ScorerCard

    @abstractmethod
    def score_set(
        self, images: ReadableImages, options: ScoringOptions, progress: OnProgress | None = None
    ) -> ScoredSet:
        """The scores of all images of a set.

        Raises:
            DataError: If an image that can be read cannot be scored.
        """


class PixelScorer(Scorer):
    """A scorer that sees nothing but the pixels. It is deterministic and may be called from several threads.

    Attributes:
        smallest: Least height and width that it can score, in pixels.
        sequential: Whether only one thread may score at a time.
        exportable: Whether ``measure`` can be part of an exported graph: PyTorch operations alone, for any number of
            images of one size.
    """

    smallest: ClassVar[int] = 1
    sequential: bool = False
    exportable: ClassVar[bool] = False

    def score(self, pixels: Tensor) -> Tensor:
        """Scores of some images.

        Args:
            pixels: RGB, uint8, (B, 3, H, W), on any device.

        Returns:
            float32, (B,), on the same device, without gradients.

        Raises:
            DataError: If the pixels are of another kind or too small, or a score is outside of the declared range.
        """
        scores = self.score_unread(pixels)
        self.require_allowed(scores)
        return scores

    def score_unread(self, pixels: Tensor) -> Tensor:
        """The same without a look at the numbers, for which a device would have to be waited for; see `score`.

        Raises:
            DataError: If the pixels are of another kind or too small.
        """
        self._check(pixels)
        with torch.no_grad():
            return self.measure(pixels).to(torch.float32)

    def require_allowed(self, scores: Tensor) -> None:
        """Refuse scores, (B,), that do not lie in the declared range.

        Raises:
            DataError: If one does not.
        """
        wrong = [value for value in scores.tolist() if not self.card.allows(value)]
        if wrong:
            raise DataError(f"the score {wrong[0]:g} is outside of what its scorer declares ({self.card.describe()}).")

    @abstractmethod
    def measure(self, pixels: Tensor) -> Tensor:
        """The scores, (B,), of checked pixels; called without gradients."""

    def score_set(
        self, images: ReadableImages, options: ScoringOptions, progress: OnProgress | None = None
    ) -> ScoredSet:
        """Read and score all images of a set, of whatever sizes, in several threads."""
        return score_images(self, images, options, progress)

    def _check(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise DataError(
                f"images to score must be uint8 RGB of shape (B, 3, H, W), got {pixels.dtype} of shape "
                f"{tuple(pixels.shape)}."
            )
        height, width = pixels.shape[2:]
        if min(height, width) < self.smallest:
            raise DataError(
                f"{self.card.name} takes images of at least {self.smallest}x{self.smallest} pixels, got "
                f"{height}x{width}; enlarge them, for example with --size 112."
            )


SCORERS: Registry[Scorer] = Registry("scorer", "facelab.iqa", supplied=("network", "device"))
