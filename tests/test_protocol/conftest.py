"""Tiny networks, image sets and pair lists for the protocol tests."""

from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelab.data.base import ImageSet, Pixels
from facelab.errors import CorruptImage
from facelab.inputs import InputSpec
from facelab.test_protocol.base import Report
from facelab.test_protocol.metrics.pair_scores import Rules, ScoredPairs
from facelab.test_protocol.protocols.verification import curves, verification_metrics


class TinyNet(nn.Module):
    """Averages 4x4 blocks, then a linear layer behind a BatchNorm and a dropout: modes and random numbers matter."""

    def __init__(self, size: int = 16, dim: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input_spec = InputSpec(size, size)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.norm = nn.BatchNorm1d(48)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(48, dim)
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.linear(self.dropout(self.norm(self.pool(image).flatten(1))))
        return result


class ArrayImages(ImageSet):
    """Images held in memory; those whose rows are in ``broken`` cannot be read."""

    def __init__(self, pixels: list[Pixels], broken: Collection[int] = ()) -> None:
        self.pixels = pixels
        self.broken = broken

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Pixels:
        if index in self.broken:
            raise CorruptImage(f"{self.location(index)} is broken.")
        return self.pixels[index]

    def location(self, index: int) -> str:
        return f"array[{index}]"

    def fingerprint(self) -> str:
        return f"array{len(self.pixels)}"


@pytest.fixture
def tiny_net() -> TinyNet:
    return TinyNet().eval()


@pytest.fixture
def tiny_images() -> ArrayImages:
    random = np.random.default_rng(0)
    return ArrayImages([random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(11)])


@pytest.fixture
def make_images() -> Callable[..., ArrayImages]:
    return ArrayImages


@pytest.fixture
def make_net() -> Callable[..., TinyNet]:
    return TinyNet


@pytest.fixture
def small_lfw(tmp_path: Path) -> tuple[Path, Path]:
    """Root and pairs file: 6 people with 3 images of their own colour, 3 folds of 2 same and 2 different pairs."""
    random = np.random.default_rng(1)
    root = tmp_path / "faces"
    for person in range(6):
        folder = root / f"Person_{person}"
        folder.mkdir(parents=True)
        base = random.integers(30, 226, (4, 4, 3))
        for number in range(1, 4):
            pixels = np.kron(base, np.ones((4, 4, 1))) + random.normal(0, 4, (16, 16, 3))
            path = folder / f"Person_{person}_{number:04d}.png"
            cv2.imwrite(str(path), pixels.clip(0, 255).astype(np.uint8))
            path.rename(path.with_suffix(".jpg"))  # the decoder looks at the content
    lines = ["3\t2"]
    for fold in range(3):
        left, right = f"Person_{2 * fold}", f"Person_{2 * fold + 1}"
        lines += [f"{left}\t1\t2", f"{right}\t1\t3", f"{left}\t1\t{right}\t2", f"{left}\t3\t{right}\t1"]
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(lines) + "\n")
    return root, pairs


def make_report(protocol: str, noise: float, one_class: bool = False) -> Report:
    random = np.random.default_rng(0)
    left = random.normal(size=(60, 8))
    same = np.arange(60) % 2 == 0 if not one_class else np.ones(60, bool)
    right = np.where(same[:, None], left, random.normal(size=(60, 8))) + noise * random.normal(size=(60, 8))
    pairs = np.arange(120).reshape(2, 60).T
    scored = ScoredPairs(np.concatenate([left, right]), pairs, same, np.arange(60) // 6, 1.0)
    return Report(protocol, verification_metrics(scored, Rules()), {"flip": False, "x": float("inf")}, curves(scored))


@pytest.fixture
def reports() -> dict[str, list[Report]]:
    return {
        "weak_50% & <i>": [make_report("LFW", 2.0), make_report("all | same", 1.0, one_class=True)],
        "strong": [make_report("LFW", 0.1)],
    }
