"""Search across qualities: an embedding that holds both experts' spaces, each as far as the image's quality counts."""

import torch
from torch import Tensor
from torch.nn import functional as F


def join_spaces(low: Tensor, high: Tensor, gate: Tensor, share: float) -> Tensor:
    """One embedding of both spaces: ``[sqrt(1 - c a) z_low, sqrt(c a) z_high]`` with unit z.

    Experts of their own give each quality a space of its own, in which a low probe lies badly among gallery images of
    the other one. Here the cosine of two images is ``sqrt((1 - c a)(1 - c a')) cos_low + c sqrt(a a') cos_high``: two
    good images meet mostly in the high-quality space, and as soon as one of them is bad, in the low-quality one. It
    is an ordinary embedding of twice the size, so every protocol, index and template mean takes it.
    This is ours: PETALface (arXiv:2412.07771) embeds every image once, by its own gate.

    Args:
        low: Embeddings by the low-quality expert (gate 0), (B, D), of any length.
        high: Embeddings by the high-quality expert (gate 1), (B, D).
        gate: a of each image, (B,); beyond 0..1 it counts as 0 or 1.
        share: c, the part of the high-quality space in a perfect image, from 0 to 1. The rest is what low probes
            find it by.

    Returns:
        Embeddings of length 1, float32, (B, 2D).
    """
    return torch.cat(_weighted(low, high, gate, share), dim=1)


def add_spaces(low: Tensor, high: Tensor, gate: Tensor, share: float) -> Tensor:
    """The halves of `join_spaces` added instead of side by side, with length 1: float32, (B, D).

    Both spaces begin as that of the base, so that their directions mean the same. A pair of images is then compared in
    both spaces and across them, also where a score is wrong.

    Args:
        low: See `join_spaces`; likewise the others.
        high: As long as ``low``.
        gate: a.
        share: c.
    """
    return F.normalize(torch.stack(_weighted(low, high, gate, share)).sum(dim=0), dim=1)


def _weighted(low: Tensor, high: Tensor, gate: Tensor, share: float) -> list[Tensor]:
    # Roots, because a cosine multiplies the parts of both images: the shares 1 - c a and c a add up to 1, so that the
    # joined result has length 1, and one bad image is enough for a pair to be compared in the low-quality space.
    weight = share * gate.float().clamp(0.0, 1.0).unsqueeze(1)
    spaces = (F.normalize(one.float(), dim=1) for one in (low, high))
    return [part.sqrt() * one for part, one in zip((1 - weight, weight), spaces, strict=True)]
