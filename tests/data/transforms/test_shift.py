"""Shifts are by whole pixels, and exact."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Change = Callable[..., Tensor]


def test_shift_is_exact_and_reaches_every_place(every_one: Change) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 13, 9, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    places = [(x, y) for x in range(5) for y in range(5)]
    found = every_one("shift", image, pixels=2)
    matches = torch.stack([(found == padded[:, :, y : y + 13, x : x + 9]).flatten(1).all(dim=1) for x, y in places])
    assert (matches.sum(dim=0) == 1).all()
    assert matches.any(dim=1).all()
