"""The whole result of an extraction, filled block by block, in memory once."""

from collections.abc import Sequence

import numpy as np
import torch

from facelab.data.base import ImageSet
from facelab.distributed import broadcast_into, gather_objects
from facelab.errors import DataError
from facelab.quality.table import QualityScores
from facelab.test_protocol.base import Embeddings, FloatArray
from facelab.test_protocol.extraction.extraction import Block
from facelab.test_protocol.extraction.extraction_settings import OnCorrupt
from facelab.test_protocol.extraction.image_batches import FailedImage


class EmbeddingBuffer:
    """Rows of embeddings that come in any order.

    Args:
        count: N.
        flip: Whether there are embeddings of mirrored images.
    """

    def __init__(self, count: int, flip: bool) -> None:
        self._count = count
        self._parts: list[FloatArray] = []
        self._flip = flip
        self._failed: list[FailedImage] = []

    def put(self, block: Block) -> None:
        """Copy a block to its place.

        Raises:
            DataError: If its embeddings have another length than those before.
        """
        self._allocate(block.values.shape[1])
        given = (block.values, block.flipped) if block.flipped is not None else (block.values,)
        for part, values in zip(self._parts, given, strict=True):
            if values.shape[1] != part.shape[1]:
                raise DataError(
                    f"images {block.rows.start} to {block.rows.stop - 1} have embeddings of length {values.shape[1]}, "
                    f"others of length {part.shape[1]}."
                )
            part[block.rows.start : block.rows.stop] = values
        self._failed += block.failed

    def share(self, owned: Sequence[range]) -> None:
        """Give every process the rows of all others; every process calls this.

        Args:
            owned: Rows that each process has put, by rank.
        """
        # A process without images learns the length of embeddings from the others.
        self._allocate(max(gather_objects(self._parts[0].shape[1] if self._parts else 0)))
        for source, rows in enumerate(owned):
            for part in self._parts if rows else ():
                broadcast_into(torch.from_numpy(part[rows.start : rows.stop]), source)
        self._failed = [image for failed in gather_objects(self._failed) for image in failed]

    def embeddings(self, images: ImageSet, on_corrupt: OnCorrupt, scores: QualityScores | None) -> Embeddings:
        """The result; under the policy ``skip`` what could not be read is marked.

        Raises:
            DataError: If none could be read.
        """
        failed = tuple(sorted(self._failed))
        if len(failed) == len(images):
            raise DataError(f"none of the {len(images)} images can be read, the first: {failed[0][1]}")
        skipped = None
        if failed and on_corrupt == "skip":
            skipped = np.zeros(len(images), bool)
            skipped[[row for row, _ in failed]] = True
        values, *flipped = self._parts
        return Embeddings(
            values,
            flipped[0] if flipped else None,
            None if scores is None else scores.values,
            skipped,
            None if scores is None else scores.scorer,
            failed,
        )

    def _allocate(self, width: int) -> None:
        if not self._parts:
            self._parts = [np.empty((self._count, width), np.float32) for _ in range(1 + self._flip)]
