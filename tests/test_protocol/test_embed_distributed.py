"""Two processes give what one gives, and fail together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facelab.data.base import ImageSet, Pixels
from facelab.distributed import rank, run_processes
from facelab.errors import CorruptImage, DataError
from facelab.inputs import InputSpec
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.extraction.extraction_settings import OnCorrupt


class Counting(ImageSet):
    """Image n is filled with n but for its last column, which has n + 50; one may be broken."""

    def __init__(self, count: int, broken: int = -1) -> None:
        self.count, self.broken = count, broken
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Pixels:
        if index == self.broken:
            raise CorruptImage(f"{self.location(index)} is broken.")
        self.reads.append(index)
        pixels = np.full((8, 8, 3), index, np.uint8)
        pixels[:, -1] += 50
        return pixels

    def location(self, index: int) -> str:
        return f"image {index}"

    def fingerprint(self) -> str:
        return f"counting {self.count}"


class Brightness(nn.Module):
    """Brightness of the middle, and of the upper left pixel, which tells an image from its mirror image."""

    input_spec = InputSpec(8, 8, mean=0.0, std=1.0)

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack([image[..., 3:5].mean(dim=(1, 2, 3)), image[:, 0, 0, 0]], dim=1)


def embed_share(count: int, broken: int) -> tuple[Any, list[int]]:
    images = Counting(count, broken)
    try:
        result = embed(Brightness(), images, batch_size=2, flip=True)
    except CorruptImage as error:
        return f"{rank()}: {error}", sorted(images.reads)
    return (result.values, result.flipped), sorted(images.reads)


def embed_without(policy: OnCorrupt) -> Embeddings:
    return embed(Brightness(), Counting(7, 5), batch_size=2, flip=True, on_corrupt=policy)


def embed_cached(folder: str) -> tuple[Embeddings, list[int]]:
    images = Counting(29)
    return embed(Brightness(), images, batch_size=2, flip=True, cache=Path(folder)), sorted(images.reads)


def embed_all_cases(folder: str) -> list[Any]:
    files = Path(folder) / "file"
    files.touch()
    return [
        *(embed_share(7, -1), embed_share(7, 5), embed_share(1, -1)),
        embed_without("skip"),
        embed_cached(f"{folder}/cache"),
        refusal(lambda: embed_cached(str(files))),
    ]


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except DataError as error:
        return str(error)
    return ""


def test_two_processes(tmp_path: Path) -> None:
    """One start of two processes for all cases, because that is what takes the time."""
    embed_cached(str(tmp_path / "whole"))
    whole = embed(Brightness(), Counting(29), batch_size=2, flip=True)  # not through a cache
    assert whole.flipped is not None
    assert not np.array_equal(whole.flipped, whole.values)
    alone = list((tmp_path / "whole").glob("*/*.npz"))
    assert len(alone) == 2  # 28 images in whole batches, and 1
    embed_cached(str(tmp_path / "cache"))  # begun by one process, …
    next((tmp_path / "cache").glob("*/000000000-*.npz")).unlink()  # … killed before its first block was there
    shared, broken, single, skipped, cached, unwritable = zip(
        *run_processes(embed_all_cases, 2, str(tmp_path)), strict=True
    )
    for (values, flipped), reads in shared:
        assert values[:, 0].tolist() == list(range(7))
        assert values[:, 1].tolist() == list(range(7))
        assert flipped[:, 1].tolist() == list(range(50, 57))
        assert reads in ([0, 1, 2], [3, 4, 5, 6])  # each reads its share only
    assert [error for error, _ in broken] == ["0: image 5 is broken.", "1: image 5 is broken."]
    for (values, flipped), _ in single:  # one process has nothing to do
        assert values.tolist() == [[0.0, 0.0]]
        assert flipped.shape == (1, 2)
    for result in skipped:
        assert result.failed == ((5, "image 5 is broken."),)
        assert result.skipped.tolist() == [row == 5 for row in range(7)]
        assert result.values[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 6]
    assert [reads for _, reads in cached] == [list(range(28)), []]  # only the missing block
    for result, _ in cached:
        np.testing.assert_array_equal(result.values, whole.values)
        np.testing.assert_array_equal(result.flipped, whole.flipped)
    assert all("cannot be written" in sentence for sentence in unwritable)


def test_a_cache_of_two_processes_serves_one(tmp_path: Path) -> None:
    folder = str(tmp_path / "cache")
    (first, left), (second, right) = run_processes(embed_cached, 2, folder)
    assert sorted(left + right) == list(range(29))
    assert left
    assert right
    alone, reads = embed_cached(folder)
    assert not reads
    for result in (first, second):
        np.testing.assert_array_equal(result.values, alone.values)
