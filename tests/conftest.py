"""Shared fixtures: where golden and real data lie, golden models, and one thread per test process."""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
ROUNDINGS = 16
torch.set_num_threads(1)


def _folder(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{what} not found: {folder} is missing (set {variable})")
    return folder


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder with outputs of the original implementations; the test is skipped without it."""
    return _folder("FACELAB_GOLDEN", ROOT.parent / "shared" / "golden", "golden data")


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """Folder with real faces, records and weights; the test is skipped without it."""
    return _folder("FACELAB_SHARED", ROOT.parent / "shared", "real data")


@dataclass(frozen=True)
class GoldenModel:
    """A model of another project, as its json and npz describe it.

    Attributes:
        manifest: Input size and seed, gain, number of parameters, and every tensor's name, shape and dtype.
        expected: Outputs of the original, by name; ``out0`` is the embedding.
    """

    manifest: dict[str, Any]
    expected: dict[str, Tensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the original's state dict."""
        return {name: tuple(shape) for name, shape, _ in self.manifest["state_dict"]}

    def images(self) -> Tensor:
        """The two input images, (2, 3, size, size)."""
        size = self.manifest["input_size"]
        generator = np.random.default_rng(self.manifest["input_seed"])
        return torch.from_numpy(generator.uniform(-1, 1, (2, 3, size, size)).astype(np.float32))

    def weights(self) -> dict[str, Tensor]:
        """Every tensor of the original's state dict; counters are zero."""
        floating = {name: dtype.startswith("float") for name, _, dtype in self.manifest["state_dict"]}
        return {
            name: self._values(name, shape) if floating[name] else torch.zeros(shape, dtype=torch.int64)
            for name, shape in self.shapes.items()
        }

    @staticmethod
    def relative_error(actual: Tensor, expected: Tensor) -> float:
        """Largest over the images of |actual - expected| / |expected|."""
        return float(((actual - expected).norm(dim=1) / expected.norm(dim=1)).max())

    def agrees_when_rounded(self, network: Callable[[Tensor], Tensor], tolerance: float) -> bool:
        """Whether embeddings are within a relative error under one of `ROUNDINGS` ways to round, for ResNeSt.

        With these weights its softmax sees logits of up to 31,000, so that rounding in fp32 decides near ties: pixels
        moved by one unit in the last place move the embedding by up to 2.8e-4, and the original's output is itself
        2.0e-4 from what float64 gives. On two threads of a machine like the original's, ours is equal bit by bit; sums
        in another order (one thread, another instruction set) round differently.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            with torch.inference_mode():
                errors = (self.relative_error(network(images), self.expected["out0"]) for images in self._rounded())
                return any(error < tolerance for error in errors)
        finally:
            torch.set_num_threads(threads)

    def _rounded(self) -> Iterator[Tensor]:
        """The images, and then copies in which random pixels are one unit in the last place larger."""
        images, generator = self.images(), torch.Generator().manual_seed(0)
        larger = torch.nextafter(images, torch.full_like(images, torch.inf))
        yield images
        for _ in range(ROUNDINGS - 1):
            yield torch.where(torch.rand(images.shape, generator=generator) < 0.5, images, larger)

    def _values(self, name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)).float()
        if len(shape) >= 2:
            return self.manifest["gain"] * noise / math.sqrt(math.prod(shape[1:]))  # rounded twice, as golden.py does
        if name.endswith("running_var"):
            return noise.abs() * 0.5 + 0.5
        return noise * 0.1 + self._centre(name)

    def _centre(self, name: str) -> float:
        if not name.endswith("weight"):
            return 0.0
        return 1.0 if name.removesuffix("weight") + "bias" in self.shapes else 0.25  # norms; slopes of PReLU


@pytest.fixture
def golden_model() -> Callable[[Path, str], GoldenModel]:
    """Reads a golden model by its name from a folder with ``NAME.json`` and ``NAME.npz``."""

    def read(folder: Path, name: str) -> GoldenModel:
        with np.load(folder / f"{name}.npz") as arrays:
            expected = {key: torch.from_numpy(arrays[key]) for key in arrays}
        return GoldenModel(json.loads((folder / f"{name}.json").read_text()), expected)

    return read
