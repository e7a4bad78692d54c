"""How fast does a network train? A plain PyTorch loop against facelab's engine, from JPEG files to updated weights.

The baseline is described in plain.py. Ours is what ``facelab train`` runs: loader, augmentation and normalisation per
batch, the mode `Conventional` with ArcFace, `engine.train`; bf16 and channels_last. Both read the same files, with as
many threads; a round is one epoch of the baseline and one of ours.

    python benchmarks/training.py --out training.json
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from comparison import Comparison, compare, report
from photos import write_photos
from plain import PlainTraining
from rich.console import Console

from facelab.engine import Progress, train
from facelab.training_mode.assembly import assemble
from facelab.training_mode.settings import make_config

GOALS = {"r18": 1.5, "MobileFaceNet": 1.0}
LEARNING_RATE = 0.01


def engine_epoch(settings: dict[str, Any], rounds: int) -> Callable[[], None]:
    """A run of facelab; each call goes on for one epoch.

    Args:
        settings: The run's settings.
        rounds: Calls that may come.
    """
    training = {**settings["training"], "epochs": rounds}
    parts = assemble(make_config({**settings, "training": training}, "the benchmark"))
    progress = Progress(parts.progress.updates_per_epoch, epochs=0, batch_size=parts.progress.batch_size)

    def epoch() -> None:
        progress.epochs += 1
        train(parts.mode, parts.feed, parts.optim, [], progress=progress)

    return epoch


def settings_of(backbone: str, root: Path, size: int, batch_size: int, workers: int, precision: str) -> dict[str, Any]:
    """The run that corresponds to the plain loop."""
    return {
        "backbone": backbone,
        "head": "ArcFace",
        "data": {"source": {"ImageFolder": {"root": str(root)}}, "size": size, "workers": max(workers, 1)},
        "optimizer": {"lr": LEARNING_RATE, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {"name": "constant"},
        "training": {"batch_size": batch_size, "precision": precision, "device": "cpu"},
    }


def rate(epoch: Callable[[], None], images: int) -> float:
    """Images a second in one epoch."""
    start = time.perf_counter()
    epoch()
    return images / (time.perf_counter() - start)


def main(
    backbones: Annotated[list[str] | None, typer.Option("--backbone", help="Catalogue entry.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a step.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps in a round.")] = 2,
    rounds: Annotated[int, typer.Option(help="Rounds of each program, beside one to warm up.")] = 5,
    seconds: Annotated[float, typer.Option(help="Start no further round of a network after this time.")] = 100.0,
    workers: Annotated[int, typer.Option(help="Processes of the plain loader, threads of ours.")] = 2,
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 leaves its choice.")] = 0,
    precision: Annotated[str, typer.Option(help="Of ours: bf16 or fp32.")] = "bf16",
    tar: Annotated[Path | None, typer.Option(help="Photos of 112x112 in folders; drawn faces by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare training speed."""
    torch.set_num_threads(threads or torch.get_num_threads())
    images, rows = batch_size * steps, list[Comparison]()
    with tempfile.TemporaryDirectory() as folder:
        paths, labels = write_photos(Path(folder), images, 112, tar)
        for backbone in backbones or GOALS:
            plain = PlainTraining(backbone, paths, labels, batch_size=batch_size, workers=workers, lr=LEARNING_RATE)
            settings = settings_of(backbone, Path(folder) / "photos", 112, batch_size, workers, precision)
            ours = engine_epoch(settings, rounds + 1)
            programs = (partial(rate, plain.epoch, images), partial(rate, ours, images))
            goal = GOALS.get(backbone)
            rows.append(compare(f"{backbone}, {precision}", *programs, rounds=rounds, goal=goal, seconds=seconds))
    title = f"Training from JPEG files, {steps} steps of {batch_size}, {torch.get_num_threads()} threads"
    report(f"{title}: a plain PyTorch loop in fp32 against facelab", rows, out, Console())


if __name__ == "__main__":
    typer.run(main)
