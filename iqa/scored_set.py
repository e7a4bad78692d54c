"""What it is to score a set of images: which images, with what means, and what comes of it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.quality.table import NamedImages


class ReadableImages(NamedImages, Protocol):
    """What is scored; every `facelab.data.base.ImageSet` is one."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Image ``index`` as RGB, uint8, (H, W, 3).

        Raises:
            CorruptImage: If it cannot be read.
        """


class ScoresBatches(Protocol):
    """What scores; every `facelab.iqa.base.PixelScorer` is one.

    Attributes:
        sequential: Whether only one thread may score at a time.
    """

    sequential: bool

    def score(self, pixels: Tensor) -> Tensor:
        """Scores (B,) of RGB images, uint8, (B, 3, H, W)."""


@dataclass(frozen=True)
class ScoringOptions:
    """How a set is scored; no score depends on it but by rounding.

    Attributes:
        device: Where the scorer computes.
        batch_size: Images scored at once.
        workers: Threads that read and score, with one core each; 0 for one per core.
    """

    device: str | torch.device = "cpu"
    batch_size: int = 64
    workers: int = 0


@dataclass(frozen=True)
class ScoredSet:
    """The scores of a set.

    Attributes:
        values: float32, (N,), in the order of the set; NaN where an image could not be read.
        failed: Row and reason of each image that could not be read, ascending.
    """

    values: NDArray[np.float32]
    failed: tuple[tuple[int, str], ...] = ()
