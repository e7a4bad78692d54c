"""How fast are 112x112 JPEG files read? A plain ``DataLoader`` with Pillow against facelab's `Loader`.

The plain program is what published ones do (see plain.py): every image is opened with Pillow, mirrored, and normalised
by torchvision's transforms in the workers. Ours gives uint8 and leaves mirroring and normalisation to the device, for a
whole batch. The first row stops at uint8, which is what a GPU is sent; the second goes to the same result as the plain
program, normalised float32, on the CPU.

    python benchmarks/reading.py --out reading.json
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from comparison import compare, report
from patterns import PER_PERSON, SIZE, write_images
from photos import write_photos
from plain import PlainImages, plain_loader
from rich.console import Console
from torch import Tensor

from facelab.data.loading.loader import Loader
from facelab.data.loading.samplers import Shuffle
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.transforms.augment import DEFAULT, Augment
from facelab.inputs import InputSpec, normalise


def rate(batches: Callable[[], Iterable[Tensor]]) -> float:
    """Images a second over all batches."""
    start, count = time.perf_counter(), 0
    for batch in batches():
        count += len(batch)
    return count / (time.perf_counter() - start)


def plain(paths: list[Path], batch_size: int, workers: int) -> Callable[[], Iterator[Tensor]]:
    """Epochs of the plain loader."""
    labels = [number // PER_PERSON for number in range(len(paths))]
    loader = plain_loader(PlainImages(paths, labels, InputSpec(), flip=True), batch_size, workers, train=True)
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
    augment, spec = Augment(DEFAULT, seed=0), InputSpec(SIZE, SIZE)
    return lambda: (normalise(augment(batch, 0, step).image, spec) for step, batch in enumerate(loader.batches(0)))


def main(
    images: Annotated[int, typer.Option(help="JPEG files.")] = 4096,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    workers: Annotated[int, typer.Option(help="Processes of the plain loader, threads of ours.")] = 2,
    rounds: Annotated[int, typer.Option(help="Epochs measured of each.")] = 5,
    tar: Annotated[Path | None, typer.Option(help="Photos of 112x112 in folders; drawn patterns by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare reading speed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), images) if tar is None else write_photos(Path(folder), images, SIZE, tar)[0]
        root = paths[0].parents[1]
        size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        baseline = partial(rate, plain(paths, batch_size, workers))
        rows = [
            compare("uint8 batches", baseline, partial(rate, ours(root, batch_size, workers)), rounds=rounds, goal=3.0),
            compare(
                "+ flip and normalisation",
                baseline,
                partial(rate, ours_normalised(root, batch_size, workers)),
                rounds=rounds,
                goal=3.0,
            ),
        ]
    title = f"Reading {images} JPEG files of {SIZE}x{SIZE} and {size:.1f} KB, {workers} workers"
    report(f"{title}: DataLoader and Pillow against facelab", rows, out, Console())


if __name__ == "__main__":
    typer.run(main)
