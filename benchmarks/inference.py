"""How fast are photos embedded? A plain PyTorch loop against facelab's extractor, from JPEG files to a NumPy array.

The baseline is described in plain.py. Ours is `facelab.test_protocol.extraction.embed`, which every protocol uses; bf16
and channels_last. Both read the same files, with as many threads, and the networks have the same weights; a round is
all images once for the baseline and once for ours. The cosine between both embeddings of each image is checked.

    python benchmarks/inference.py --out inference.json
"""

import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from comparison import report
from networks import Backbones, OurPrecision, Out, Photos, Program, Rounds, Seconds, Threads, Workers, compare_networks
from numpy.typing import NDArray
from photos import write_photos
from plain import PlainImages, plain_embeddings, plain_loader
from plain_step import stock_network
from rich.console import Console

from facelab.backbone.base import BACKBONES
from facelab.catalogue import build
from facelab.data.sources.image_folder import ImageFolder
from facelab.engine.precision import Precision
from facelab.errors import DataError
from facelab.test_protocol.extraction.embed import embed

GOALS = {"r18": 2.0, "MobileFaceNet": 2.0}
LEAST_COSINE = 0.99
Embedding = Callable[[], NDArray[np.float32]]


def programs(
    backbone: str, paths: list[Path], labels: list[int], batch_size: int, workers: int, precision: Precision
) -> tuple[Embedding, Embedding]:
    """The plain loop and ours, with equal weights."""
    torch.manual_seed(0)
    network = build(BACKBONES, backbone)
    # Copied before ours becomes channels_last: the plain program keeps contiguous weights.
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


def main(
    backbones: Backbones = None,
    images: Annotated[int, typer.Option(help="Photos in a round.")] = 192,
    batch_size: Annotated[int, typer.Option(help="Images in a forward pass.")] = 32,
    rounds: Rounds = 5,
    seconds: Seconds = 100.0,
    workers: Workers = 2,
    threads: Threads = 0,
    precision: OurPrecision = "bf16",
    tar: Photos = None,
    out: Out = None,
) -> None:
    """Compare the speed of embedding."""
    torch.set_num_threads(threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        paths, labels = write_photos(Path(folder), images, 112, tar)

        def pair(backbone: str) -> tuple[Program, Program]:
            plain, ours = programs(backbone, paths, labels, batch_size, workers, cast(Precision, precision))
            check_agreement(plain(), ours())
            return plain, ours

        rows = compare_networks(
            backbones or GOALS, pair, GOALS, images=images, precision=precision, rounds=rounds, seconds=seconds
        )
    title = f"Embedding {images} JPEG files in batches of {batch_size}, {torch.get_num_threads()} threads"
    report(f"{title}: a plain PyTorch loop in fp32 against facelab", rows, out, Console())


if __name__ == "__main__":
    typer.run(main)
