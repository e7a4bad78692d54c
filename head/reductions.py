"""What a loss wants of all the logits of a sample: one number, added up over chunks of classes and over processes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from facelab import distributed

Objective = Literal["softmax", "binary"]


class Reduction(ABC):
    """Makes one number of each sample of its logits. Where a class is no negative, its logit is the least there is."""

    @abstractmethod
    def of(self, logits: Tensor, weight: Tensor | None) -> Tensor:
        """The number of each sample over the classes of a chunk, with gradient.

        Args:
            logits: (B, C).
            weight: How many classes each stands for, (C,), or None.

        Returns:
            (B,).
        """

    @abstractmethod
    def of_(self, logits: Tensor, weight: Tensor | None) -> Tensor:
        """The same without gradient; the logits are overwritten on the way."""

    @abstractmethod
    def add(self, one: Tensor, other: Tensor) -> Tensor:
        """The number over the classes of both, (B,)."""

    @abstractmethod
    def slope_(self, logits: Tensor, weight: Tensor | None, total: Tensor) -> Tensor:
        """Derivative of the number over all chunks by each logit of one, (B, C), written over the logits.

        Args:
            logits: (B, C).
            weight: As in `of`.
            total: The number over all chunks, (B,).
        """

    @abstractmethod
    def most_slope(self, number: Tensor, total: Tensor) -> Tensor:
        """What the sum of `slope_` over the classes of a chunk cannot exceed.

        Args:
            number: The number over the chunk, (..., B).
            total: That over all chunks, (B,).
        """

    @abstractmethod
    def over_processes(self, share: Tensor) -> Tensor:
        """The number over the classes of all processes, of that over this one's, (B,) -> (B,), with gradient."""


class LogSumExp(Reduction):
    """Logarithm of the sum of exponentials: the partition sum of a softmax. Weights are left aside.

    Sampled classes compete as they are, as in Partial FC: those that were not sampled have no part in the softmax.
    """

    def of(self, logits: Tensor, weight: Tensor | None) -> Tensor:
        """See `Reduction.of`."""
        return logits.logsumexp(dim=1)

    def of_(self, logits: Tensor, weight: Tensor | None) -> Tensor:
        """See `Reduction.of_`."""
        top = logits.amax(dim=1)
        return logits.sub_(top.unsqueeze(1)).exp_().sum(dim=1).log_().add_(top)

    def add(self, one: Tensor, other: Tensor) -> Tensor:
        """See `Reduction.add`."""
        return torch.logaddexp(one, other)

    def slope_(self, logits: Tensor, weight: Tensor | None, total: Tensor) -> Tensor:
        """The share of each class in the sum, see `Reduction.slope_`."""
        return logits.sub_(total.unsqueeze(1)).exp_()

    def most_slope(self, number: Tensor, total: Tensor) -> Tensor:
        """The share of the chunk in the sum, see `Reduction.most_slope`."""
        return (number - total).exp()

    def over_processes(self, share: Tensor) -> Tensor:
        """See `Reduction.over_processes`."""
        return log_sum_over_processes(share)


class SumOfSoftplus(Reduction):
    """Sum of ``log(1 + exp(logit))``: the loss of binary decisions, all negative, each as often as it weighs."""

    def of(self, logits: Tensor, weight: Tensor | None) -> Tensor:
        """See `Reduction.of`."""
        costs = torch.logaddexp(logits, logits.new_zeros(()))
        return (costs if weight is None else costs * weight).sum(dim=1)

    def of_(self, logits: Tensor, weight: Tensor | None) -> Tensor:
        """See `Reduction.of_`."""
        gains = logsigmoid(logits.neg_())
        return (gains if weight is None else gains.mul_(weight)).sum(dim=1).neg_()

    def add(self, one: Tensor, other: Tensor) -> Tensor:
        """See `Reduction.add`."""
        return one + other

    def slope_(self, logits: Tensor, weight: Tensor | None, total: Tensor) -> Tensor:
        """The probability of each decision, see `Reduction.slope_`."""
        slopes = logits.sigmoid_()
        return slopes if weight is None else slopes.mul_(weight)

    def most_slope(self, number: Tensor, total: Tensor) -> Tensor:
        """The number itself, because ``x / (1 + x)`` is at most ``log(1 + x)``; see `Reduction.most_slope`."""
        return number

    def over_processes(self, share: Tensor) -> Tensor:
        """See `Reduction.over_processes`."""
        return distributed.sum_shares(share)


REDUCTIONS: Mapping[Objective, Reduction] = {"softmax": LogSumExp(), "binary": SumOfSoftplus()}
"""By the objective of a head."""


def log_sum_over_processes(share: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials of all processes' shares, (B,) -> (B,).

    Exponentials of logits overflow fp32 past 88 (CircleLoss scales to 256), and logarithms of sums cannot be added. So
    the largest share goes round first, without gradient because it cancels, and then a sum of what is at most 1 each.
    """
    if distributed.world_size() == 1:
        return share
    top = distributed.all_reduce_max(share)
    return top + distributed.sum_shares((share - top).exp()).log()
