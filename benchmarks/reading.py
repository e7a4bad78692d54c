"""How fast are 112x112 JPEG files read? A plain ``DataLoader`` with Pillow against `facelab.data.loader.Loader`.

The plain program is what published ones do: every image is opened with Pillow, mirrored, and normalised by
torchvision's transforms in the workers. Ours gives uint8 and leaves mirroring and normalisation to the device, for a
whole batch; the second row counts them too, on the CPU.

    python benchmarks/reading.py --out reading.json
"""

import importlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from comparison import compare, report
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facelab.data.augment import AugmentConfig
from facelab.data.image_folder import ImageFolder
from facelab.data.loader import Loader
from facelab.data.samplers import Shuffle
from facelab.inputs import InputSpec, normalise
from facelab.vision import load_torchvision

SIZE = 112
PER_PERSON = 16


class PlainImages(Dataset[tuple[Tensor, int]]):
    """The usual data set: one image at a time, opened with Pillow, mirrored and normalised in the worker."""

    def __init__(self, paths: list[Path]) -> None:
        transforms = importlib.import_module(f"{load_torchvision().__name__}.transforms")
        self.paths = [str(path) for path in paths]
        self.labels = [number // PER_PERSON for number in range(len(paths))]
        self.transform = transforms.Compose(
            [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def write_images(root: Path, count: int) -> list[Path]:
    """JPEG files of quality 95 with about as many bytes as faces have (8 KB)."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = generator.integers(0, 256, (14, 14, 3)).astype(np.float32)
        fine = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) + generator.normal(0, 6, (SIZE, SIZE, 1))
        path = root / f"{number // PER_PERSON:05d}" / f"{number % PER_PERSON:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), fine.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])
        paths.append(path)
    return paths


def rate(batches: Callable[[], Iterable[Tensor]]) -> float:
    """Images a second over all batches."""
    start, count = time.perf_counter(), 0
    for batch in batches():
        count += len(batch)
    return count / (time.perf_counter() - start)


def plain(paths: list[Path], batch_size: int, workers: int) -> Callable[[], Iterator[Tensor]]:
    """Epochs of the plain loader; its processes stay alive, so that their start is not counted."""
    loader = DataLoader(
        PlainImages(paths),
        batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    return lambda: (image for image, _ in loader)


def ours(root: Path, batch_size: int, workers: int) -> Callable[[], Iterator[Tensor]]:
    """Epochs of our loader: uint8."""
    source = ImageFolder(root)
    loader = Loader(source, Shuffle(source.labels), batch_size=batch_size, workers=workers)
    return lambda: (batch.image for batch in loader.batches(0))


def ours_normalised(root: Path, batch_size: int, workers: int) -> Callable[[], Iterator[Tensor]]:
    """Epochs of our loader, with what the device does to a batch before the network."""
    source = ImageFolder(root)
    loader = Loader(source, Shuffle(source.labels), batch_size=batch_size, workers=workers)
    augment, spec = AugmentConfig().build(seed=0), InputSpec(SIZE, SIZE)
    return lambda: (normalise(augment(batch, 0, step).image, spec) for step, batch in enumerate(loader.batches(0)))


def main(
    images: Annotated[int, typer.Option(help="JPEG files.")] = 4096,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 256,
    workers: Annotated[int, typer.Option(help="Processes of the plain loader, threads of ours.")] = 2,
    rounds: Annotated[int, typer.Option(help="Epochs measured of each.")] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare reading speed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = write_images(root, images)
        size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        baseline = partial(rate, plain(paths, batch_size, workers))
        rows = [
            compare("uint8 batches", baseline, partial(rate, ours(root, batch_size, workers)), rounds=rounds, goal=3.0),
            compare(
                "+ flip and normalisation",
                baseline,
                partial(rate, ours_normalised(root, batch_size, workers)),
                rounds=rounds,
            ),
        ]
    title = f"Reading {images} JPEG files of {SIZE}x{SIZE} and {size:.1f} KB, {workers} workers"
    report(f"{title}: DataLoader and Pillow against facelab", rows, out, Console())


if __name__ == "__main__":
    typer.run(main)
