"""How fast does a network train? A plain PyTorch loop against facelab's engine, from JPEG files to updated weights.

The baseline is described in plain.py. Ours is what ``facelab train`` runs: loader, augmentation and normalisation per
batch, the mode `Conventional` with ArcFace, `engine.train`; bf16 and channels_last. Both read the same files, with as
many threads; a round is one epoch of the baseline and one of ours.

    python benchmarks/training.py --out training.json
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from comparison import report
from networks import Backbones, OurPrecision, Out, Photos, Program, Rounds, Seconds, Threads, Workers, compare_networks
from photos import write_photos
from plain import PlainTraining
from rich.console import Console

from facelab.engine.loop import Progress, train
from facelab.run.assembly import assemble
from facelab.run.settings import make_config

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


def main(
    backbones: Backbones = None,
    batch_size: Annotated[int, typer.Option(help="Images in a step.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps in a round.")] = 2,
    rounds: Rounds = 5,
    seconds: Seconds = 100.0,
    workers: Workers = 2,
    threads: Threads = 0,
    precision: OurPrecision = "bf16",
    tar: Photos = None,
    out: Out = None,
) -> None:
    """Compare training speed."""
    torch.set_num_threads(threads or torch.get_num_threads())
    images = batch_size * steps
    with tempfile.TemporaryDirectory() as folder:
        paths, labels = write_photos(Path(folder), images, 112, tar)

        def pair(backbone: str) -> tuple[Program, Program]:
            plain = PlainTraining(backbone, paths, labels, batch_size=batch_size, workers=workers, lr=LEARNING_RATE)
            settings = settings_of(backbone, Path(folder) / "photos", 112, batch_size, workers, precision)
            # One more: the comparison warms up with a round that does not count.
            return plain.epoch, engine_epoch(settings, rounds + 1)

        rows = compare_networks(
            backbones or GOALS, pair, GOALS, images=images, precision=precision, rounds=rounds, seconds=seconds
        )
    title = f"Training from JPEG files, {steps} steps of {batch_size}, {torch.get_num_threads()} threads"
    report(f"{title}: a plain PyTorch loop in fp32 against facelab", rows, out, Console())


if __name__ == "__main__":
    typer.run(main)
