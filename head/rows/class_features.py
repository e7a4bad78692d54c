"""What the features of a batch say of its classes, and how it is written into a bank with a row for each class.

Nothing here has a shape that depends on who is in the batch, so that no GPU is waited for.
"""

import torch
from torch import Tensor

from facelab.head.same_class import class_last, class_sums


def class_means(values: Tensor, labels: Tensor) -> Tensor:
    """For each sample the mean over all samples of its class, (B, D) -> (B, D).

    Args:
        values: Of the samples, (B, D).
        labels: Their classes, int64, (B,).
    """
    means = class_sums(values, labels) / class_sums(values.new_ones(len(values), 1), labels)
    # Of one class the same bits for all, which rows of a product need not have.
    return means[class_last(labels)]


def write_rows(bank: Tensor, column: Tensor, owned: Tensor, values: Tensor) -> None:
    """Write the rows of the classes of a batch that this process owns.

    Args:
        bank: A row for each owned class, (C_own, ...).
        column: Row of each sample's class, int64, (B,); any valid one where the class is elsewhere.
        owned: Whether the class is here, bool, (B,).
        values: What to write, (B, ...), equal for samples of one class.
    """
    # Samples of other processes repeat what one of this process writes; if there is none, what was there.
    samples = torch.arange(len(column), device=column.device)
    sample = torch.where(owned, samples, owned.int().argmax())
    column = column[sample]
    here = owned[sample].view(-1, *[1] * (values.ndim - 1))
    bank[column] = torch.where(here, values[sample], bank[column])
