"""The one extractor: images in, raw embeddings out. Every protocol, command and evaluation during training uses it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facelab.data.base import ImageSet
from facelab.distributed import gather_objects, rank, world_size
from facelab.errors import ConfigError, DataError, FacelabError
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.embedding_cache import load_embeddings, save_embeddings
from facelab.test_protocol.forward import AUTOCAST, Forward, Precision, input_spec_of, model_hash
from facelab.test_protocol.image_batches import image_batches

ProgressCallback = Callable[[int, int], None]
BATCHES_TOGETHER = 8


@dataclass(frozen=True)
class _Settings:
    """The checked settings of `embed`, which explains them."""

    device: torch.device
    batch_size: int
    flip: bool
    precision: Precision
    channels_last: bool
    resize: bool
    workers: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(
                f"batch_size must be at least 1 and workers at least 0, got {self.batch_size} and {self.workers}."
            )
        if self.precision not in ("fp32", *AUTOCAST):
            raise ConfigError(f"precision is '{self.precision}'. Known: fp32, {', '.join(AUTOCAST)}.")


def embed(
    network: nn.Module,
    images: ImageSet,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    flip: bool = False,
    precision: Precision = "fp32",
    channels_last: bool = True,
    resize: bool = False,
    workers: int = 0,
    cache: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Embeddings:
    """Embeddings of every image.

    With several processes each takes a contiguous block, and all get the whole result. The network is put into
    evaluation mode and back, and the random generators are left as they were, so that this can run during training.
    How a CPU's cores are used, and how a network can forbid it: see `Forward`.

    Args:
        network: A backbone (anything with an ``input_spec``), already on ``device``.
        images: What to embed.
        device: Where the network runs.
        batch_size: Images in one forward pass.
        flip: Whether the mirrored images are embedded too.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16``; embeddings come back as float32.
        channels_last: Memory format of the images; the faster one almost everywhere.
        resize: Whether images of another size are resized (averaging areas when they shrink, linear when they grow);
            otherwise they are refused.
        workers: Threads that read images ahead; 0 for one per core, at most 8.
        cache: Folder that keeps embeddings of the same model, images and settings, or None.
        progress: Called with the images done and all images of this process.

    Raises:
        ConfigError: If the network does not say what input it takes, or an option is out of range.
        CorruptImage: If an image cannot be read.
        DataError: If there is no image, one has another size than the network takes (without ``resize``), or an
            embedding is not finite. With several processes, all of them raise.
    """
    how = _Settings(torch.device(device), batch_size, flip, precision, channels_last, resize, workers)
    input_spec_of(network)
    if not len(images):
        raise DataError("there is no image to embed.")
    cached = None if cache is None else cache / f"{_cache_key(network, images, how)}.npz"
    if cached is not None and all(gather_objects(cached.is_file())):
        return load_embeddings(cached)
    embeddings = _join(gather_objects(_own_block(network, images, how, progress)))
    if cached is not None and rank() == 0:
        save_embeddings(cached, embeddings)
    return embeddings


def _own_block(
    network: nn.Module, images: ImageSet, how: _Settings, progress: ProgressCallback | None
) -> Embeddings | FacelabError:
    """This process's share, or the error that all processes are to raise; raised here alone, the others would wait."""
    start, stop = (len(images) * place // world_size() for place in (rank(), rank() + 1))
    try:
        with Forward(network, how.device, how.precision, how.channels_last) as forward:
            return _embed_rows(forward, images, range(start, stop), how, progress)
    except FacelabError as error:
        if world_size() == 1:
            raise
        return error


def _embed_rows(
    forward: Forward, images: ImageSet, rows: range, how: _Settings, progress: ProgressCallback | None
) -> Embeddings:
    plain, mirrored = _Collector(images), _Collector(images)
    size, readers = forward.spec.size, how.workers
    for batch, pixels in image_batches(images, rows, how.batch_size, size, resize=how.resize, workers=readers):
        on_device = torch.from_numpy(pixels).to(how.device).permute(0, 3, 1, 2)
        plain.add(batch, forward(on_device))
        if how.flip:
            mirrored.add(batch, forward(on_device.flip(3)))
        if progress is not None:
            progress(batch.stop - rows.start, len(rows))
    return Embeddings(plain.result(), mirrored.result() if how.flip else None)


class _Collector:
    """Brings embeddings to the host in groups, so that the device is not waited for at every batch."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self._rows: list[int] = []
        self._on_device: list[Tensor] = []
        self._done: list[NDArray[np.float32]] = []

    def add(self, rows: range, embedding: Tensor) -> None:
        self._rows += rows
        self._on_device.append(embedding)
        if len(self._on_device) == BATCHES_TOGETHER:
            self._fetch()

    def result(self) -> NDArray[np.float32]:
        self._fetch()
        return np.concatenate(self._done) if self._done else np.empty((0, 0), np.float32)

    def _fetch(self) -> None:
        if not self._on_device:
            return
        values = torch.cat(self._on_device).cpu().numpy()
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            image = self._rows[int(np.argmin(finite))]
            raise DataError(f"{self._images.location(image)}: its embedding is not finite; the model may be damaged.")
        self._done.append(values)
        self._rows, self._on_device = [], []


def _join(outcomes: list[Embeddings | FacelabError]) -> Embeddings:
    for outcome in outcomes:
        if isinstance(outcome, FacelabError):
            raise outcome
    parts = [outcome for outcome in outcomes if isinstance(outcome, Embeddings) and len(outcome.values)]
    mirrored = [part.flipped for part in parts if part.flipped is not None]
    return Embeddings(np.concatenate([part.values for part in parts]), np.concatenate(mirrored) if mirrored else None)


def _cache_key(network: nn.Module, images: ImageSet, how: _Settings) -> str:
    settings = (how.flip, how.precision, how.resize, how.device.type)
    return hashlib.sha256(f"{model_hash(network)} {images.fingerprint()} {settings}".encode()).hexdigest()[:32]
