"""An image set in, raw embeddings out, with several processes and a cache: for protocols and evaluation in training."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from facelab.backbone.base import check_quality, takes_quality
from facelab.data.base import ImageSet
from facelab.distributed import broadcast_object, is_main, rank, together, world_size
from facelab.errors import CorruptImage, DataError
from facelab.progress import OnProgress
from facelab.quality.table import QualityScores
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.extraction.embedding_buffer import EmbeddingBuffer
from facelab.test_protocol.extraction.embedding_cache import EmbeddingCache, block_rows
from facelab.test_protocol.extraction.extraction import BatchScores, Block, cut, embedded_blocks
from facelab.test_protocol.extraction.extraction_settings import ExtractionSettings, OnCorrupt
from facelab.test_protocol.extraction.forward import Forward, Precision, input_spec_of, model_hash
from facelab.test_protocol.extraction.image_batches import ReadBatch

ROWS_TOGETHER = 1024
"""Images that a process holds beside its result."""


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
    any_photo: bool = False,
    workers: int = 0,
    cache: Path | None = None,
    on_corrupt: OnCorrupt = "error",
    quality: QualityScores | None = None,
    progress: OnProgress | None = None,
) -> Embeddings:
    """Embeddings of every image.

    With several processes each takes a part, and all get the whole result, which lies in memory once. The network is
    put into evaluation mode and back, and the random generators are left as they were, so that this can run during
    training.
    How a CPU's cores are used, and how a network can forbid it: see `Forward`.

    Args:
        network: A backbone (anything with an ``input_spec``), already on ``device``.
        images: What to embed.
        device: Where the network runs.
        batch_size: Images in one forward pass.
        flip: Whether the mirrored images are embedded too.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16``; embeddings come back as float32.
        channels_last: Memory format of the images; the faster one almost everywhere.
        resize: Whether images of another size are resized (averaging areas when they shrink, linear when they grow) if
            they can be aligned faces by their shape and size; otherwise they are refused.
        any_photo: With ``resize``, whether those that cannot be are resized too.
        workers: Threads that read images ahead; 0 for one per core.
        cache: Folder that keeps embeddings of the same model, images and preprocessing, or None. They are written block
            by block, so that an extraction that was killed goes on where it stood, on any number of processes.
        on_corrupt: What becomes of an image that cannot be read: ``error`` stops, ``zero`` gives it an embedding of
            zeros, ``skip`` marks it so that protocols leave it out. ``Embeddings.failed`` lists all of them.
        quality: Scores of the images, for networks that take them and for protocols that ask for them, or None.
        progress: Called with the images done and all images of this process.

    Raises:
        ConfigError: If the network does not say what input it takes, takes quality scores and gets none, or an option
            is out of range.
        CorruptImage: If an image cannot be read, under ``on_corrupt: error``.
        DataError: If there is no image, or none can be read; one has another size than the network takes (without
            ``resize``), no quality score, or an embedding that is not finite; the cache is damaged or cannot be
            written. With several processes, all of them raise.
    """
    how = ExtractionSettings(
        torch.device(device), batch_size, flip, precision, channels_last, resize, workers, on_corrupt, any_photo
    )
    input_spec_of(network)
    check_quality(network, given=quality is not None)
    if not len(images):
        raise DataError("there is no image to embed.")
    if quality is not None and on_corrupt == "error":
        quality.require(images)
    job = _Job(network, images, how, quality, progress)
    result = job.in_memory() if cache is None else job.through(cache)
    return result.embeddings(images, on_corrupt, quality)


@dataclass(frozen=True)
class _Job:
    """What is to be embedded and how."""

    network: nn.Module
    images: ImageSet
    how: ExtractionSettings
    quality: QualityScores | None
    progress: OnProgress | None

    def in_memory(self) -> EmbeddingBuffer:
        """Each process embeds one share of the rows, then all exchange theirs."""
        count, processes = len(self.images), world_size()
        shares = [range(count * place // processes, count * (place + 1) // processes) for place in range(processes)]
        rows = self.how.batch_size * max(1, ROWS_TOGETHER // self.how.batch_size)
        result = EmbeddingBuffer(count, self.how.flip)
        together(lambda: self._embed(cut(shares[rank()], rows), result.put))
        result.share(shares)
        return result

    def through(self, folder: Path) -> EmbeddingBuffer:
        """Blocks that the cache lacks are embedded and stored, then every process reads all of them."""
        cache = self._open(folder)
        # What the main process saw, for all: the folder fills while the others look, and blocks would be left out or
        # done twice.
        missing = broadcast_object(cache.missing())
        together(lambda: self._embed(missing[rank() :: world_size()], cache.save))
        result = EmbeddingBuffer(len(self.images), self.how.flip)
        together(lambda: self._read(cache, result))
        return result

    def _open(self, folder: Path) -> EmbeddingCache:
        made_of = {
            "model": model_hash(self.network),
            # Not the fingerprint: a file that was written anew under its old name must be embedded anew.
            "image_set": self.images.revision(),
            "preprocessing": self.how.preprocessing(self.network, self.images),
        }
        if self.quality is not None and takes_quality(self.network):
            made_of["quality"] = hashlib.sha256(self.quality.values.tobytes()).hexdigest()[:32]
        place = folder / hashlib.sha256(" ".join(made_of.values()).encode()).hexdigest()[:32]
        rows = block_rows(len(self.images), world_size(), self.how.batch_size)
        blocks: list[range] = []

        def plan() -> None:
            # Others would write the manifest at the same moment.
            if is_main():
                blocks.extend(EmbeddingCache.plan(place, len(self.images), rows, made_of))

        together(plan)
        return EmbeddingCache(*broadcast_object((place, blocks)))

    def _embed(self, blocks: Sequence[range], keep: Callable[[Block], None]) -> None:
        if not blocks:
            return
        how = self.how
        quality = None if self.quality is None else _looked_up(self.quality, self.images)
        with Forward(self.network, how.device, how.precision, how.channels_last) as forward:
            for block in embedded_blocks(forward, self.images, blocks, how, quality, self.progress):
                keep(block)

    def _read(self, cache: EmbeddingCache, result: EmbeddingBuffer) -> None:
        for rows in cache.blocks:
            block = cache.load(rows, self.how.flip)
            if block.failed and self.how.on_corrupt == "error":
                raise CorruptImage(
                    f"{block.failed[0][1]} So it was when {cache.path(rows)} was written; delete that file if it "
                    "was mended."
                )

            result.put(block)


def _looked_up(scores: QualityScores, images: ImageSet) -> BatchScores:
    """Scores by the numbers of the images; zero, which nobody looks at, for one that could not be read."""

    def of_batch(_: Tensor, batch: ReadBatch) -> Tensor:
        lost = {row for row, _ in batch.failed}
        scores.require(images, np.array([row for row in batch.rows if row not in lost], np.int64))
        return torch.from_numpy(np.nan_to_num(scores.values[batch.rows.start : batch.rows.stop]))

    return of_batch
