"""How fast are photos embedded? A plain PyTorch loop against facelab's extractor, from JPEG files to a NumPy array.

The baseline is described in plain.py. Ours is `facelab.test_protocol.embed.embed`, which every protocol uses; bf16 and
channels_last. Both read the same files, with as many threads, and the networks have the same weights; a round is all
images once for the baseline and once for ours. The cosine between both embeddings of each image is checked.

    python benchmarks/inference.py --out inference.json
"""

import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from comparison import Comparison, compare, report
from numpy.typing import NDArray
from photos import write_photos
from plain import PlainImages, plain_embeddings, plain_loader, stock_network
from rich.console import Console

from facelab.backbone.base import BACKBONES
from facelab.catalogue import build
from facelab.data.image_folder import ImageFolder
from facelab.errors import DataError
from facelab.precision import Precision
from facelab.test_protocol.embed import embed

GOALS = {"r18": 2.0, "MobileFaceNet": 2.0}
LEAST_COSINE = 0.99
Program = Callable[[], NDArray[np.float32]]


def programs(
    backbone: str, paths: list[Path], labels: list[int], batch_size: int, workers: int, precision: Precision
) -> tuple[Program, Program]:
    """The plain loop and ours, with equal weights."""
    torch.manual_seed(0)
    network = build(BACKBONES, backbone)
    stock = stock_network(deepcopy(network))
    images = PlainImages(paths, labels, stock.input_spec, flip=False)
    loader = plain_loader(images, batch_size, workers, train=False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    photos = ImageFolder(paths[0].parents[1])

    def ours() -> NDArray[np.float32]:
        return embed(network, photos, batch_size=batch_size, precision=precision, workers=workers).values

    return partial(plain_embeddings, stock, loader), ours


def check_agreement(plain: NDArray[np.float32], ours: NDArray[np.float32]) -> None:
    """Both programs must have done the same work.

    Raises:
        DataError: If an image's two embeddings differ.
    """
    lengths = np.linalg.norm(plain, axis=1) * np.linalg.norm(ours, axis=1)
    least = float(((plain * ours).sum(axis=1) / lengths).min())
    if least < LEAST_COSINE:
        raise DataError(f"the two embeddings of an image have a cosine of {least:.4f}, below {LEAST_COSINE}.")


def rate(program: Program, images: int) -> float:
    """Images a second."""
    start = time.perf_counter()
    program()
    return images / (time.perf_counter() - start)


def main(
    backbones: Annotated[list[str] | None, typer.Option("--backbone", help="Catalogue entry.")] = None,
    images: Annotated[int, typer.Option(help="Photos in a round.")] = 192,
    batch_size: Annotated[int, typer.Option(help="Images in a forward pass.")] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds of each program, beside one to warm up.")] = 5,
    seconds: Annotated[float, typer.Option(help="Start no further round of a network after this time.")] = 100.0,
    workers: Annotated[int, typer.Option(help="Processes of the plain loader, threads of ours.")] = 2,
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 leaves its choice.")] = 0,
    precision: Annotated[str, typer.Option(help="Of ours: bf16 or fp32.")] = "bf16",
    tar: Annotated[Path | None, typer.Option(help="Photos of 112x112 in folders; drawn faces by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare the speed of embedding."""
    torch.set_num_threads(threads or torch.get_num_threads())
    rows = list[Comparison]()
    with tempfile.TemporaryDirectory() as folder:
        paths, labels = write_photos(Path(folder), images, 112, tar)
        for backbone in backbones or GOALS:
            plain, ours = programs(backbone, paths, labels, batch_size, workers, cast(Precision, precision))
            check_agreement(plain(), ours())
            both = (partial(rate, plain, images), partial(rate, ours, images))
            goal = GOALS.get(backbone)
            rows.append(compare(f"{backbone}, {precision}", *both, rounds=rounds, goal=goal, seconds=seconds))
    title = f"Embedding {images} JPEG files in batches of {batch_size}, {torch.get_num_threads()} threads"
    report(f"{title}: a plain PyTorch loop in fp32 against facelab", rows, out, Console())


if __name__ == "__main__":
    typer.run(main)
