"""The triplet loss with online selection of negatives."""

from typing import ClassVar, get_args

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range, one_of
from facelab.head.noise import uniform
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective
from facelab.training_mode.triplet.selection import Select, mean_where, positive_pairs, squared_distances, triplets


@OBJECTIVES.register("Triplet")
class TripletLoss(Objective):
    """``mean max(d_ap - d_an + margin, 0)`` over the chosen triplets (Schroff et al., CVPR 2015, eq. 2 and 3).

    d are squared distances on the unit sphere, 0 to 4. FaceX-Zoo's margin of 2.5 makes nearly every negative count.

    Args:
        margin: Above 0 and up to 4.
        select: Which negatives a pair of an anchor and a positive gets: ``all``, the ``hardest``, a ``random`` one of
            those that are too near, or a ``semihard`` one, further away than the positive by less than the margin.
            Pairs without such a negative are left out of the mean.
        both: Let each image of a pair be the anchor; FaceX-Zoo takes the first alone.
        seed: Of the random choices.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="schroff2015facenet",
        title="FaceNet: A Unified Embedding for Face Recognition and Clustering",
        authors="Schroff, Florian and Kalenichenko, Dmitry and Philbin, James",
        venue="CVPR",
        year=2015,
        arxiv="1503.03832",
    )
    drawn: Tensor

    def __init__(self, margin: float = 0.2, select: Select = "semihard", both: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.margin = in_range("Triplet margin", margin, 0.0, 4.0, low_open=True)
        one_of("Triplet select", select, get_args(Select))
        self.select: Select = select
        self.both = both
        self.seed = int(in_range("Triplet seed", seed, 0, 2**31, high_open=True))
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """Mean over the triplets of the global batch, ()."""
        distance = squared_distances(embedding)
        pairs = positive_pairs(label, both=self.both)
        if not len(pairs):
            return embedding.sum() * 0.0
        chosen = triplets(distance, label, pairs, self.margin, self.select, self._priority(len(pairs), len(label)))
        return mean_where(chosen.excess.clamp_min(0.0), chosen.taken)

    def _priority(self, pairs: int, images: int) -> Tensor | None:
        """Random numbers, the same on all processes, which then choose alike."""
        if self.select not in ("random", "semihard"):
            return None
        numbers = uniform(self.seed, self.drawn, pairs * images).view(pairs, images)
        self.drawn += 1
        return numbers
