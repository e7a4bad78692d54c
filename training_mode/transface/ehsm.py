"""Entropy-guided hard sample mining: samples whose tokens say little weigh more."""

import math
from typing import Literal

import torch
from torch import Tensor

Entropy = Literal["deviation", "gaussian"]

LEAST_DEVIATION = 1e-6  # a token of equal numbers has the entropy of this one instead of minus infinity


def token_entropy(deviation: Tensor, form: Entropy) -> Tensor:
    """How much each token says, from the standard deviation of its channels.

    Args:
        deviation: (B, N).
        form: ``gaussian`` is the entropy in nats of a normal distribution of that deviation (Dan et al., ICCV 2023),
            ``deviation`` the deviation itself, which their program takes in its place.
    """
    if form == "deviation":
        return deviation
    return deviation.clamp_min(LEAST_DEVIATION).log() + 0.5 * math.log(2 * math.pi) + 0.5


def entropy_weight(entropy: Tensor, gamma: float) -> Tensor:
    """Weight of each sample, ``1 + exp(-gamma * mean entropy)``, (B, N) -> (B,)."""
    return 1.0 + torch.exp(-gamma * entropy.mean(dim=1))
