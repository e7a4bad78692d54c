"""The one extractor: images in, raw embeddings out. Every protocol, command and evaluation during training uses it."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facelab.data.base import ImageSet, Pixels
from facelab.distributed import gather_objects, rank, world_size
from facelab.errors import ConfigError, DataError, FacelabError
from facelab.inputs import InputSpec, normalise
from facelab.test_protocol.base import Embeddings

Precision = Literal["fp32", "bf16", "fp16"]
ProgressCallback = Callable[[int, int], None]
AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_READERS = 8
BATCHES_AHEAD = 2  # beside one in each reader
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

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the network runs."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, AUTOCAST[self.precision])


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
    spec = input_spec_of(network)
    if not len(images):
        raise DataError("there is no image to embed.")
    cached = None if cache is None else cache / f"{_cache_key(network, images, how)}.npz"
    if cached is not None and all(gather_objects(cached.is_file())):
        return _load(cached)
    embeddings = _join(gather_objects(_own_block(network, images, how, spec, progress)))
    if cached is not None and rank() == 0:
        _save(cached, embeddings)
    return embeddings


def input_spec_of(network: nn.Module) -> InputSpec:
    """What input a network takes.

    Raises:
        ConfigError: If it does not say.
    """
    spec = getattr(network, "input_spec", None)
    if not isinstance(spec, InputSpec):
        raise ConfigError(
            f"{type(network).__name__} has no input_spec, so size, colour order and value range are unknown."
        )
    return spec


def model_hash(network: nn.Module) -> str:
    """A hash (hex) of a network's structure, input and every value of its state dict."""
    digest = hashlib.sha256(f"{network!r} {getattr(network, 'input_spec', None)}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _own_block(
    network: nn.Module, images: ImageSet, how: _Settings, spec: InputSpec, progress: ProgressCallback | None
) -> Embeddings | FacelabError:
    """This process's share, or the error that all processes are to raise; raised here alone, the others would wait."""
    start, stop = (len(images) * place // world_size() for place in (rank(), rank() + 1))
    try:
        with _undisturbed(network, how.device), how.autocast():
            return _embed_rows(network, images, range(start, stop), how, spec, progress)
    except FacelabError as error:
        if world_size() == 1:
            raise
        return error


def _embed_rows(
    network: nn.Module,
    images: ImageSet,
    rows: range,
    how: _Settings,
    spec: InputSpec,
    progress: ProgressCallback | None,
) -> Embeddings:
    plain, mirrored = _Collector(images), _Collector(images)
    for batch, pixels in _batches(images, rows, how, spec):
        on_device = torch.from_numpy(pixels).to(how.device).permute(0, 3, 1, 2)
        plain.add(batch, _forward(network, on_device, how, spec))
        if how.flip:
            mirrored.add(batch, _forward(network, on_device.flip(3), how, spec))
        if progress is not None:
            progress(batch.stop - rows.start, len(rows))
    return Embeddings(plain.result(), mirrored.result() if how.flip else None)


def _forward(network: nn.Module, pixels: Tensor, how: _Settings, spec: InputSpec) -> Tensor:
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    embedding: Tensor = network(normalise(pixels, spec).contiguous(memory_format=layout))
    return embedding.to(torch.float32)


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


def _batches(images: ImageSet, rows: range, how: _Settings, spec: InputSpec) -> Iterator[tuple[range, Pixels]]:
    """Batches in order, read ahead by threads: decoding releases Python's lock."""
    workers = how.workers or min(MAX_READERS, os.cpu_count() or 1)
    waiting: deque[tuple[range, Future[Pixels]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="reader") as pool:
        try:
            for start in range(rows.start, rows.stop, how.batch_size):
                batch = range(start, min(start + how.batch_size, rows.stop))
                waiting.append((batch, pool.submit(_read, images, batch, spec, how.resize)))
                if len(waiting) >= workers + BATCHES_AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(images: ImageSet, rows: range, spec: InputSpec, resize: bool) -> Pixels:
    """Pixels of some images, uint8, (B, H, W, 3): channels_last once the axes are permuted."""
    batch = np.empty((len(rows), spec.height, spec.width, 3), np.uint8)
    for place, row in enumerate(rows):
        pixels = images.read(row)
        if pixels.shape[:2] != spec.size:
            if not resize:
                height, width = pixels.shape[:2]
                raise DataError(
                    f"{images.location(row)}: the image is {height}x{width}, but the network takes "
                    f"{spec.height}x{spec.width}; align the images to that size, or allow resizing with resize=true."
                )
            pixels = resized(pixels, spec.size)
        batch[place] = pixels
    return batch


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels (H, W, 3) at another (height, width): areas are averaged when the image shrinks, else linear."""
    shrinks = size[0] <= pixels.shape[0] and size[1] <= pixels.shape[1]
    rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=rule), np.uint8)


@contextmanager
def _undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's mode and the random generators are as before."""
    training = [module for module in network.modules() if module.training]
    devices = [device] if device.type == "cuda" else []
    network.eval()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


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


def _load(path: Path) -> Embeddings:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Embeddings(arrays["values"], arrays.get("flipped"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: the cached embeddings are damaged ({error}); delete the file.") from None


def _save(path: Path, embeddings: Embeddings) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    mirrored = {} if embeddings.flipped is None else {"flipped": embeddings.flipped}
    try:
        with temporary.open("wb") as file:
            np.savez(file, values=embeddings.values, allow_pickle=False, **mirrored)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path}: the embeddings cannot be cached ({error.strerror}).") from None
