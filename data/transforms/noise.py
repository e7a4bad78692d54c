"""Gaussian noise that is a function of its key: the same on every device and for any division of a batch."""

import math

import numpy as np
import torch
from torch import Tensor

from facelab.data.loading.keyed_random import MULTIPLIERS, SHIFTS, STEP, Words

HALF = 24  # bits of either number; what a float32 holds exactly


def gaussian_noise(keys: Words, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal numbers, float32, (B, *shape): SplitMix64 of (key, place), then Box and Muller's transform.

    Args:
        keys: 64 bits of each image, (B,).
        shape: Of the noise of one image.
        device: Where it is made; nothing but the keys is sent there.
    """
    state = torch.from_numpy(keys.view(np.int64)).to(device, non_blocking=True)[:, None]
    place = torch.arange(1, math.prod(shape) + 1, device=device)
    bits = _scrambled(state + place * _signed(STEP))
    radius = (((bits >> (64 - HALF)) & ((1 << HALF) - 1)) + 1).float() / (1 << HALF)  # above 0, whose logarithm is none
    angle = (bits & ((1 << HALF) - 1)).float() * (2 * math.pi / (1 << HALF))
    return ((-2.0 * radius.log()).sqrt() * angle.cos()).reshape(len(keys), *shape)


def _scrambled(word: Tensor) -> Tensor:
    """As `keyed_random.mix`; int64 wraps around as uint64 does, but its shifts repeat the sign."""
    first, second, third = (int(shift) for shift in SHIFTS)
    word = (word ^ _shifted(word, first)) * _signed(MULTIPLIERS[0])
    word = (word ^ _shifted(word, second)) * _signed(MULTIPLIERS[1])
    return word ^ _shifted(word, third)


def _shifted(word: Tensor, bits: int) -> Tensor:
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: np.uint64) -> int:
    return int(np.asarray(word).view(np.int64))
