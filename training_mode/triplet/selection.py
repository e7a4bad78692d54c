"""Pairs and triplets of a batch, chosen on its device by matrix operations."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Select = Literal["all", "hardest", "random", "semihard"]


def squared_distances(embedding: Tensor) -> Tensor:
    """Squared Euclidean distances on the unit sphere of embeddings (B, D) of any norm, 0 to 4, (B, B)."""
    unit = F.normalize(embedding)
    return (2.0 - 2.0 * unit @ unit.T).clamp_min(0.0)


def positive_pairs(label: Tensor, *, both: bool = False) -> Tensor:
    """Pairs (i, j) of images of one person with i < j, or in both orders, int64, (P, 2), in the order of their places.

    How many there are decides the shape of all that follows, so on a GPU the host waits here, once a step. Without
    that, everything would take a cube of the batch in place of P rows.
    """
    same = label.unsqueeze(0) == label.unsqueeze(1)
    return (same.fill_diagonal_(False) if both else same.triu(1)).nonzero()


@dataclass(frozen=True)
class Triplets:
    """Triplets of a batch: P pairs of an anchor and a positive, with negatives.

    Attributes:
        excess: ``d_ap - d_an + margin`` of each, with gradient: (P,) for one negative of each pair, (P, B) for all.
        taken: Which of these are triplets, bool.
        negative: Place of the negative of each pair, int64, (P,); None if all are taken.
    """

    excess: Tensor
    taken: Tensor
    negative: Tensor | None = None


def triplets(
    distance: Tensor, label: Tensor, pairs: Tensor, margin: float, select: Select, priority: Tensor | None = None
) -> Triplets:
    """Negatives for pairs of an anchor and a positive.

    Args:
        distance: Distances of a batch, (B, B).
        label: Class of each image, (B,).
        pairs: Places of anchors and positives, (P, 2).
        margin: Added to ``d_ap - d_an``, which makes v.
        select: ``all`` images of other people; the ``hardest``, with the largest v, if that is above 0; a ``random``
            one with v above 0; or a ``semihard`` one, random with v between 0 and the margin: further away than the
            positive.
        priority: Of the candidates of a pair the one with the highest is taken, (P, B); for the last two.
    """
    anchor, positive = pairs.unbind(dim=1)
    excess = distance[anchor, positive].unsqueeze(1) - distance[anchor] + margin
    negative = label[anchor].unsqueeze(1) != label
    if select == "all":
        return Triplets(excess, negative)
    value = excess.detach()
    if select == "hardest":
        candidates = negative & (value > 0)
        rank = value
    else:
        assert priority is not None
        candidates = negative & (value > 0)
        if select == "semihard":
            candidates = candidates & (value < margin)
        rank = priority
    chosen = rank.masked_fill(~candidates, -torch.inf).argmax(dim=1)
    row = torch.arange(len(pairs), device=pairs.device)
    return Triplets(excess[row, chosen], candidates[row, chosen], chosen)


def mean_where(value: Tensor, taken: Tensor) -> Tensor:
    """Mean of the values that are taken, (); 0 with a gradient if none is."""
    return (value * taken).sum() / taken.sum().clamp_min(1)
