"""How fast are 112x112 images read? A plain ``DataLoader`` with Pillow against facelab's `Loader`, and that by workers.

The plain program is what published ones do (see plain.py): every image is opened with Pillow, mirrored, and normalised
by torchvision's transforms in the workers. Ours gives uint8 and leaves mirroring and normalisation to the device, for a
whole batch. The first row stops at uint8, which is what a GPU is sent; the second goes to the same result as the plain
program, normalised float32, on the CPU.

    python benchmarks/reading.py plain --out reading.json

By workers: threads, the only way before, and processes, in turns in one run, on JPEG files, the same in a tar
archive, as RecordIO and decoded; alone, and while a thread of the same process runs small pieces of Python code, as a
training loop does. The measure is what one core decodes of the files that does nothing else. On a machine that others
use too, images by second of processor time say what a core of its own would read.

    python benchmarks/reading.py workers --out workers.json
"""

import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from comparison import compare, report
from machine import machine
from patterns import PER_PERSON, SIZE, write_images
from photos import write_photos
from plain import PlainImages, plain_loader
from rich.console import Console
from rich.table import Table
from torch import Tensor

from facelab.data.base import Source
from facelab.data.formats.conversion import encoder
from facelab.data.formats.record_writer import write_recordio
from facelab.data.loading.loader import Loader
from facelab.data.loading.reading_speed import READERS, Endless, busy_lock, one_core
from facelab.data.loading.reading_speed import rate as loader_rate
from facelab.data.loading.samplers import Shuffle
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.packed import write_packed
from facelab.data.sources.recordio import RecordIO
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


def sources(folder: Path, images: int) -> dict[str, Source]:
    """The same drawn images in four forms."""
    (folder / "faces").mkdir()
    jpeg = ImageFolder(write_images(folder / "faces", images)[0].parents[1])
    with tarfile.open(folder / "faces.tar", "w") as archive:
        archive.add(folder / "faces", "faces")
    write_recordio(folder / "faces.rec", jpeg, encoder(jpeg))
    return {
        "JPEG folder": jpeg,
        "tar": ImageFolder(folder / "faces.tar"),
        "RecordIO": RecordIO(folder / "faces.rec"),
        "packed": write_packed(folder / "packed", jpeg, workers=1),
    }


def by_workers(
    images: Annotated[int, typer.Option(help="Images.")] = 2048,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    workers: Annotated[list[int] | None, typer.Option(help="May be repeated; 1 and 2 by default.")] = None,
    form: Annotated[list[str] | None, typer.Option(help="May be repeated; all by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 0.7,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turns.")] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Images a second by threads and by processes."""
    torch.set_num_threads(1)
    rows: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources(Path(folder), images).items():
            if not form or name in form:
                rows[name] = rates_of(source, batch_size, workers or [1, 2], seconds, rounds)
    table = Table(
        "", "", "images/s", "from", "to", "of one core", "by processor time", title=f"{images} images of {SIZE}x{SIZE}"
    )
    for name, arms in rows.items():
        alone = [median(column) for column in zip(*arms["one core"], strict=True)]
        for arm, rounds_of in arms.items():
            rates, by_processor = zip(*rounds_of, strict=True)
            numbers = (f"{value:,.0f}" for value in (median(rates), min(rates), max(rates)))
            shares = (f"{median(each) / one:.2f}" for each, one in zip((rates, by_processor), alone, strict=True))
            table.add_row(name, arm, *numbers, *shares)
    Console(width=120).print(table)
    if out is not None:
        out.write_text(json.dumps({"rates": rows, "machine": machine()}, indent=1) + "\n")


def rates_of(
    source: Source, batch_size: int, workers: list[int], seconds: float, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Images a second, and by second of processor time, of each round by arm; processes start once."""
    order = Endless(len(source))
    loaders = {
        (reader, number): Loader(source, order, batch_size=batch_size, workers=number, prefetch=number, reader=reader)
        for reader in READERS
        for number in workers
    }
    for loader in loaders.values():
        loader_rate(loader, order.once, 10 * seconds)  # processes start, and look for holes in the JPEGs
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        found.setdefault("one core", []).append(with_processor(partial(one_core, source, batch_size, seconds)))
        for is_busy in (False, True):
            for (reader, number), loader in loaders.items():
                with busy_lock(is_busy):
                    arm = f"{number} {reader}{', busy loop' if is_busy else ''}"
                    # Before the clock starts, as many as all workers read at once: they come late, and together.
                    ahead = 2 * number * batch_size
                    found.setdefault(arm, []).append(with_processor(partial(loader_rate, loader, ahead, seconds)))
    for loader in loaders.values():
        loader.close()
    return found


def with_processor(measure: Callable[[], float]) -> tuple[float, float]:
    """A rate, and the same for a whole core: divided by the share of one that was used, by all processes together."""
    begin, used = time.perf_counter(), time.process_time() + sum(children_seconds(os.getpid()))
    found = measure()
    used = time.process_time() + sum(children_seconds(os.getpid())) - used
    return found, found * (time.perf_counter() - begin) / used


def children_seconds(pid: int) -> Iterator[float]:
    """Processor time of each process that one has started, and of those that these have, from ``/proc``."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split()
        yield (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        yield from children_seconds(int(child))


if __name__ == "__main__":
    app = typer.Typer()
    app.command("plain")(main)
    app.command("workers")(by_workers)
    app()
