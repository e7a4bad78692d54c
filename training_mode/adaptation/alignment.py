"""A loss across qualities: low images of a person near the high ones, and nearer than those of others."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SCALE, MARGIN = 32.0, 0.2


def alignment_loss(
    embedding: Tensor, label: Tensor, low: Tensor, scale: float = SCALE, margin: float = MARGIN
) -> Tensor:
    """Contrastive loss between the low- and the high-quality images of a batch, both ways.

    For each pair (i, j) of a low and a high image of one person, ``softplus(log sum_k exp(s cos_ik) - s (cos_ij - m))``
    over the high images k of other people, and the same over the low images of others: the softmax loss of
    supervised contrastive learning (Khosla et al., NeurIPS 2020, eq. 2) with one positive at a time, the margin of
    CosFace (Wang et al., CVPR 2018) and negatives of the other quality only. It moves high images too: they must lose
    what cannot be seen in low resolution. Of several processes each pairs the images of its own part of the batch.

    Args:
        embedding: (B, D), of any length.
        label: Person of each, (B,).
        low: Which are of low quality, bool, (B,).
        scale: s.
        margin: m.

    Returns:
        Mean over the pairs, (); 0 if the batch has no pair.
    """
    # In fp32 also under autocast: times a scale of 32, the rounding of a bf16 cosine would be an eighth of a logit.
    unit = F.normalize(embedding.float(), dim=1)
    cosine = unit[low] @ unit[~low].T
    same = label[low].unsqueeze(1) == label[~low].unsqueeze(0)
    # Where nobody else is there, all are masked and the loss is 0; masked_fill then drops the NaN in the gradient too.
    negative = (scale * cosine).masked_fill(same, -torch.inf)
    positive = scale * (cosine - margin)
    losses = [F.softplus(negative.logsumexp(dim=d, keepdim=True) - positive)[same] for d in (0, 1)]
    if not len(losses[0]):
        # A zero that has a gradient, so that it can be differentiated as any other loss.
        return embedding.sum() * 0.0
    return torch.stack(losses).mean()


def pairs_across(label: NDArray[np.int64], low: NDArray[np.bool_]) -> int:
    """How many pairs of a low and a high image of one person there are; labels (B,), low ones true, (B,)."""
    same = label[low][:, None] == label[~low][None, :]
    return int(same.sum())
