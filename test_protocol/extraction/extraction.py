"""Images -> embeddings, block by block: the one loop that embeds.

`facelab.test_protocol.extraction.embed.embed` runs it on each process, for protocols and for evaluation in training;
`FaceModel.embed` runs it on images that a user hands over.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facelab.data.base import ImageSet
from facelab.errors import DataError
from facelab.progress import OnProgress
from facelab.test_protocol.base import FloatArray
from facelab.test_protocol.extraction.extraction_settings import ExtractionSettings
from facelab.test_protocol.extraction.forward import Forward
from facelab.test_protocol.extraction.image_batches import FailedImage, ReadBatch, image_batches

BatchScores = Callable[[Tensor, ReadBatch], Tensor]
"""Quality scores, float32 (B,): of pixels, uint8 (B, 3, H, W) on the device, and of the batch that they are of."""

BATCHES_TOGETHER = 8


@dataclass(frozen=True)
class Block:
    """The embeddings of some images in a row.

    Attributes:
        rows: Which images of the set.
        values: float32, (R, D); zeros for an image that could not be read.
        flipped: The same of the mirrored images, or None.
        failed: Row and reason of each image that could not be read.
    """

    rows: range
    values: FloatArray
    flipped: FloatArray | None
    failed: tuple[FailedImage, ...] = ()


def cut(rows: range, size: int) -> list[range]:
    """Rows in pieces of ``size``; the last one may be smaller."""
    return [range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def embedded_blocks(
    forward: Forward,
    images: ImageSet,
    blocks: Sequence[range],
    how: ExtractionSettings,
    quality: BatchScores | None = None,
    progress: OnProgress | None = None,
) -> Iterator[Block]:
    """Embed some blocks in their order. Batches never cross blocks, so a block is the same whatever others there are.

    Args:
        forward: The network, entered.
        images: The set.
        blocks: Rows of each block; none empty.
        how: The settings.
        quality: Gives the scores of each batch, or None.
        progress: Called with the images done and all images of ``blocks``.

    Raises:
        CorruptImage: If an image cannot be read, under ``on_corrupt: error``.
        DataError: If an image has another size or an embedding that is not finite; and what ``quality`` raises.
    """
    batches = [batch for block in blocks for batch in cut(block, how.batch_size)]
    blocks_by_end = {block.stop: block for block in blocks}
    done, total = 0, sum(map(len, blocks))
    plain, mirrored, failed = _Collector(images), _Collector(images), list[FailedImage]()
    for batch in image_batches(images, batches, forward.spec.aligned, how):
        pixels = torch.from_numpy(batch.pixels).to(how.device).permute(0, 3, 1, 2)
        scores = None if quality is None else quality(pixels, batch).to(how.device)
        failed += batch.failed
        plain.add(batch.rows, forward(pixels, scores), batch.failed)
        if how.flip:
            mirrored.add(batch.rows, forward(pixels.flip(3), scores), batch.failed)
        done += len(batch.rows)
        if progress is not None:
            progress(done, total)
        if batch.rows.stop in blocks_by_end:
            flipped = mirrored.take() if how.flip else None
            yield Block(blocks_by_end[batch.rows.stop], plain.take(), flipped, tuple(failed))
            failed.clear()


class _Collector:
    """Brings embeddings to the host in groups, so that the device is not waited for at every batch."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self._rows: list[int] = []
        self._lost: list[int] = []
        self._on_device: list[Tensor] = []
        self._done: list[FloatArray] = []

    def add(self, rows: range, embedding: Tensor, failed: Sequence[FailedImage]) -> None:
        self._lost += [len(self._rows) + row - rows.start for row, _ in failed]
        self._rows += rows
        self._on_device.append(embedding)
        if len(self._on_device) == BATCHES_TOGETHER:
            self._fetch()

    def take(self) -> FloatArray:
        """Everything since the last call, (R, D)."""
        self._fetch()
        taken, self._done = np.concatenate(self._done), []
        return taken

    def _fetch(self) -> None:
        if not self._on_device:
            return
        values = torch.cat(self._on_device).cpu().numpy()
        # The network saw black pixels in their place; what it made of them is no embedding.
        values[self._lost] = 0.0
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            image = self._rows[int(np.argmin(finite))]
            raise DataError(f"{self._images.location(image)}: its embedding is not finite; the model may be damaged.")
        self._done.append(values)
        self._rows, self._lost, self._on_device = [], [], []
