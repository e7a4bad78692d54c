"""Embeddings kept on disk in blocks: a second evaluation costs nothing, and an extraction that was killed goes on.

A folder for each model, image set and preprocessing holds ``manifest.json`` and one ``.npz`` file for each block, whose
checksums numpy verifies when it is read. Files are written under temporary names and renamed, so none is half written.
"""

import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from facelab.config import Strict
from facelab.errors import DataError
from facelab.outside.arrays import read_npz
from facelab.outside.file import opened
from facelab.outside.json import parse_json, read_json
from facelab.test_protocol.extraction.extraction import Block, cut
from facelab.weights.whole_file import write_whole

MANIFEST = "manifest.json"
BLOCK_ROWS = 1024
DAMAGE = (OSError, ValueError, KeyError, TypeError, OverflowError, DataError)
"""What files give whose bytes were changed."""


class Manifest(Strict):
    """What ``manifest.json`` says.

    Attributes:
        format: Of the folder.
        images: N.
        rows: Images in a block; the last one may have fewer.
        made_of: Hashes that name the folder, for a curious reader.
    """

    format: Literal[1] = 1
    images: int = Field(ge=1)
    rows: int = Field(ge=1)
    made_of: dict[str, str] = Field(default_factory=dict)


class EmbeddingCache:
    """The blocks of one extraction.

    Args:
        folder: Where they lie; made when something is written.
        blocks: Rows of each block.
    """

    def __init__(self, folder: Path, blocks: list[range]) -> None:
        self.folder = folder
        self.blocks = blocks
        self._first: tuple[Path, int] | None = None  # a block that was read, and the length of its embeddings

    @staticmethod
    def plan(folder: Path, images: int, rows: int, made_of: dict[str, str]) -> list[range]:
        """Rows of each block of a folder; a new folder gets blocks of ``rows``, another keeps those that it has.

        Raises:
            DataError: If its manifest is damaged or cannot be written.
        """
        path = folder / MANIFEST
        if not path.is_file():
            manifest = Manifest(images=images, rows=rows, made_of=made_of)
            write_whole(path, manifest.model_dump_json(indent=1) + "\n")
        try:
            manifest = Manifest.model_validate(read_json(path, "a manifest"))
        except (DataError, ValidationError):
            raise DataError(f"{path}: is damaged; delete the folder {folder}.") from None
        if manifest.images != images:
            raise DataError(f"{path}: counts {manifest.images} images instead of {images}; delete the folder {folder}.")
        if manifest.made_of != made_of:
            raise DataError(f"{path}: is of another model, image set or preprocessing; delete the folder {folder}.")
        return cut(range(images), manifest.rows)

    def missing(self) -> list[range]:
        """Blocks that are still to be embedded."""
        return [block for block in self.blocks if not self.path(block).is_file()]

    def save(self, block: Block) -> None:
        """Keep a block.

        Raises:
            DataError: If it cannot be written.
        """
        arrays: dict[str, Any] = {} if block.flipped is None else {"flipped": block.flipped}
        file = io.BytesIO()
        owner = np.array(self.folder.name)  # else a block that was copied from another folder would be taken
        np.savez(file, values=block.values, failed=np.array(json.dumps(block.failed)), owner=owner, **arrays)
        write_whole(self.path(block.rows), file.getvalue())

    def load(self, rows: range, flip: bool) -> Block:
        """Read what `save` wrote.

        Raises:
            DataError: If the file is missing, damaged, or of another folder.
        """
        path = self.path(rows)
        if not path.is_file():
            raise DataError(
                f"{path}: was written by another process but is not to be seen here; "
                "the cache must lie where all processes reach it."
            )
        try:
            with opened(path) as file:
                arrays = read_npz(file)
            owner = str(arrays["owner"]) if "owner" in arrays else self.folder.name
            told = parse_json(str(arrays["failed"].item()), str(path), "a list of failed images")
            failed = tuple((int(row), str(reason)) for row, reason in told)
            block = Block(rows, arrays["values"], arrays["flipped"] if flip else None, failed)
            _check(block)
        except DAMAGE as error:
            raise DataError(
                f"{path}: the cached embeddings are damaged ({error}); delete the file, and only its images are "
                "embedded again."
            ) from None
        if owner != self.folder.name:
            raise DataError(f"{path}: belongs to the cache folder '{owner[:80]}'; delete the file.")
        other, width = self._first = self._first or (path, block.values.shape[1])
        if block.values.shape[1] != width:
            raise DataError(
                f"{path}: has embeddings of length {block.values.shape[1]}, {other.name} of length {width}; delete the "
                "one that is not of this model, or the folder."
            )
        return block

    def path(self, rows: range) -> Path:
        """The file of a block."""
        return self.folder / f"{rows.start:09d}-{rows.stop:09d}.npz"


def _check(block: Block) -> None:
    """Refuse arrays that no extraction gives.

    Raises:
        ValueError: If so; says what is wrong.
    """
    parts = [part for part in (block.values, block.flipped) if part is not None]
    for part in parts:
        if part.dtype != np.float32 or part.ndim != 2 or part.shape != (len(block.rows), parts[0].shape[1]):
            raise ValueError(f"{part.dtype} of shape {part.shape}")
        if not np.isfinite(part).all():
            raise ValueError("values that are not finite")
    if any(row not in block.rows for row, _ in block.failed):
        raise ValueError("images of other blocks")


def block_rows(images: int, processes: int, batch_size: int) -> int:
    """Images in a block of a new folder: whole batches, about a thousand, fewer if processes would have no work."""
    wanted = min(BLOCK_ROWS, images // processes)
    return batch_size * max(1, wanted // batch_size)
