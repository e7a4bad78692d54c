"""Sums over the samples of a batch that are of one class, in an order that does not change.

Nothing here has a shape that depends on who is in the batch, so that no GPU is waited for.
"""

import torch
from torch import Tensor

SAMPLES_AT_A_TIME = 1024


def class_sums(values: Tensor, labels: Tensor) -> Tensor:
    """For each sample the sum over all samples of its class, (B, D) -> (B, D).

    Args:
        values: Of the samples, (B, D).
        labels: Their classes, int64, (B,).
    """
    # As a matrix product: GPUs add in the order of its terms, index_add_ in that in which they arrive. In parts, since
    # that of a batch of 25,000 with itself would take gigabytes.
    split = torch.split(labels, SAMPLES_AT_A_TIME)
    parts = [(part.unsqueeze(1) == labels).to(values.dtype) @ values for part in split]
    return torch.cat(parts)


def class_first(labels: Tensor) -> Tensor:
    """For each sample the place in the batch of the first sample of its class, int64, (B,)."""
    ordered, order = labels.sort(stable=True)
    return order[torch.searchsorted(ordered, labels)]


def class_last(labels: Tensor) -> Tensor:
    """For each sample the place in the batch of the last sample of its class, int64, (B,)."""
    ordered, order = labels.sort(stable=True)
    return order[torch.searchsorted(ordered, labels, right=True) - 1]
