"""Two processes give what one gives, and fail together."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facelab.data.base import ImageSet, Pixels
from facelab.distributed import rank, run_processes
from facelab.errors import CorruptImage
from facelab.inputs import InputSpec
from facelab.test_protocol.embed import embed


class Counting(ImageSet):
    """Image n is filled with n; one may be broken."""

    def __init__(self, count: int, broken: int = -1) -> None:
        self.count, self.broken = count, broken
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Pixels:
        if index == self.broken:
            raise CorruptImage(f"{self.location(index)} is broken.")
        self.reads.append(index)
        return np.full((8, 8, 3), index, np.uint8)

    def location(self, index: int) -> str:
        return f"image {index}"

    def fingerprint(self) -> str:
        return f"counting {self.count}"


class Brightness(nn.Module):
    input_spec = InputSpec(8, 8, mean=0.0, std=1.0)

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack([image.mean(dim=(1, 2, 3)), image[:, 0, 0, 0]], dim=1)


def embed_share(count: int, broken: int) -> tuple[Any, list[int]]:
    images = Counting(count, broken)
    try:
        result = embed(Brightness(), images, batch_size=2, flip=True)
    except CorruptImage as error:
        return f"{rank()}: {error}", sorted(images.reads)
    return (result.values, result.flipped), sorted(images.reads)


def embed_all_cases() -> list[tuple[Any, list[int]]]:
    return [embed_share(7, -1), embed_share(7, 5), embed_share(1, -1)]


def test_two_processes() -> None:
    """One start of two processes for all cases, because that is what takes the time."""
    shared, broken, single = zip(*run_processes(embed_all_cases, 2), strict=True)
    for (values, flipped), reads in shared:
        assert values[:, 0].tolist() == list(range(7))
        assert flipped[:, 1].tolist() == list(range(7))
        assert reads in ([0, 1, 2], [3, 4, 5, 6])  # each reads its share only
    assert [error for error, _ in broken] == ["0: image 5 is broken.", "1: image 5 is broken."]
    for (values, flipped), _ in single:  # one process has nothing to do
        assert values.tolist() == [[0.0, 0.0]]
        assert flipped.shape == (1, 2)
