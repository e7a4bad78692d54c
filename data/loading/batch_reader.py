"""Rows of a sampler -> the pixels of one batch, with a policy for images that cannot be read; without PyTorch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import ImageSet, Memory, Pixels, Source, differing_size, new_memory
from facelab.data.loading.keyed_random import permute
from facelab.errors import CorruptImage, DataError

CorruptPolicy = Literal["error", "skip"]
Indices = NDArray[np.int64]

CHUNK = 256
"""Images that are read between two looks at whether anybody still wants them."""
REPLACEMENT_TRIES = 100
READ_ERRORS = (CorruptImage, OSError, ValueError)
"""What a damaged file can raise, also from a source of somebody else that does not translate it."""


class NotWantedError(Exception):
    """The consumer has left; never seen outside of the threads and processes that read."""


@dataclass(frozen=True)
class Task:
    """What is to be read for a batch.

    Attributes:
        rows: Index of each image, int64, (B,), B at least 1.
        epoch: Epoch that the rows belong to.
        position: Place of the first row in that epoch.
    """

    rows: Indices
    epoch: int
    position: int


@dataclass(frozen=True)
class ReadBatch:
    """The images of a batch and what was wrong while they were read.

    Attributes:
        pixels: RGB, uint8, (B, H, W, 3).
        index: Which image each of them is, int64, (B,); another one than was asked for where that was corrupt.
        corrupt: (index, reason) of each image that was replaced, in order.
    """

    pixels: Pixels
    index: Indices
    corrupt: tuple[tuple[int, str], ...]


class BatchReader:
    """Reads the images of a batch into one array. Called from several threads at once; keeps no state.

    Args:
        source: Where images come from.
        on_corrupt: ``error`` raises `CorruptImage`; ``skip`` takes another image of the same class, or of any class
            if that class has no good one.
        seed: Chooses the replacements, together with epoch and position.
    """

    def __init__(self, source: Source, on_corrupt: CorruptPolicy = "error", seed: int = 0) -> None:
        self._source = source
        self._on_corrupt = on_corrupt
        self._seed = seed

    def read(self, task: Task, is_unwanted: Callable[[], bool], memory: Memory | None = None) -> ReadBatch:
        """The images of some rows.

        Args:
            task: Which.
            is_unwanted: Asked now and then; reading ends early once it says so.
            memory: Gives the array to write them into; a new one by default.

        Raises:
            CorruptImage: If an image cannot be read and the policy is ``error``.
            DataError: If images differ in size, or no replacement can be read.
            NotWantedError: If ``is_unwanted`` said so.
        """
        # Replacements are written into it, and the rows are the sampler's.
        used = task.rows.copy()
        corrupt: list[tuple[int, str]] = []
        batch = _Room(len(used), memory)
        # Chunk by chunk: who stops a run need not wait for the rest of a large batch.
        for start in range(0, len(used), CHUNK):
            if is_unwanted():
                raise NotWantedError
            part = slice(start, min(start + CHUNK, len(used)))
            rows = task.rows[part]
            pixels, used[part], found = self._chunk(rows, task.epoch, task.position + start, batch.place(part))
            corrupt += found
            if not batch.put(part, pixels):
                where = self._source.location(int(used[start]))
                raise DataError(differing_size(where, pixels.shape[1:], batch.shape))
        return ReadBatch(batch.pixels, used, tuple(corrupt))

    def _chunk(
        self, indices: Indices, epoch: int, position: int, place: Memory | None
    ) -> tuple[Pixels, Indices, list[tuple[int, str]]]:
        """Pixels, the images they come from, and what was corrupt."""
        try:
            read = self._source.read_many(indices) if place is None else self._source.read_into(indices, place)
            return _checked(self._source, read, int(indices[0])), indices, []
        except READ_ERRORS:
            pass  # read one by one, to find out which is bad
        images: list[Pixels] = []
        used: list[int] = []
        corrupt: list[tuple[int, str]] = []
        for row, index in enumerate(indices.tolist()):
            pixels, taken, found = self._one(index, epoch, position + row)
            if images and pixels.shape != images[0].shape:
                raise DataError(differing_size(self._source.location(taken), pixels.shape, images[0].shape))
            images.append(pixels)
            used.append(taken)
            corrupt += found
        return np.stack(images), np.array(used, np.int64), corrupt

    def _one(self, index: int, epoch: int, position: int) -> tuple[Pixels, int, list[tuple[int, str]]]:
        """Pixels of one image or of its replacement, which image it is, and what was corrupt on the way."""
        corrupt: list[tuple[int, str]] = []
        for candidate in self._candidates(index, epoch, position):
            try:
                return read_checked(self._source, candidate), candidate, corrupt
            except CorruptImage as error:
                if self._on_corrupt == "error":
                    raise
                corrupt.append((candidate, str(error)))
        raise DataError(f"{corrupt[0][1]} No readable image to replace it was found in {len(corrupt) - 1} tries.")

    def _candidates(self, index: int, epoch: int, position: int) -> Iterator[int]:
        """The image itself, then others of its class, then any, in an order that only the arguments choose."""
        yield index
        mates = np.flatnonzero(self._source.labels == self._source.labels[index])  # slow, but corrupt images are few
        for images in (len(mates), len(self._source)):
            tries = np.arange(min(images, REPLACEMENT_TRIES))
            # Keyed by position and not by image: another epoch, or a second corrupt image of the class, takes another
            # one. The last key tells the order among the class from that among all.
            for choice in permute(tries, images, self._seed, epoch, position, images).tolist():
                candidate = int(mates[choice]) if images == len(mates) else choice
                if candidate != index:
                    yield candidate


def read_checked(source: ImageSet, index: int) -> Pixels:
    """One image as RGB, uint8, (H, W, 3); whatever a damaged file raises becomes a `CorruptImage` with its name.

    Raises:
        CorruptImage: If it cannot be read.
        DataError: If the set gives something else than it promises.
    """
    try:
        pixels = source.read(index)
    except CorruptImage:
        raise
    except READ_ERRORS as error:
        raise CorruptImage(f"{source.location(index)}: cannot be read ({error}).") from error
    return np.asarray(_checked(source, pixels[None], index)[0])


class _Room:
    """Memory for a batch, taken once the first of its chunks says how large an image is.

    Args:
        count: Images of the batch.
        memory: Gives it; None if any will do, also that of a source which gives the whole batch at once.
    """

    def __init__(self, count: int, memory: Memory | None) -> None:
        self._count, self._memory = count, memory
        self._pixels: Pixels | None = None

    @property
    def pixels(self) -> Pixels:
        """All of it, uint8, (B, H, W, 3)."""
        assert self._pixels is not None, "a batch has at least one row"
        return self._pixels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, (H, W, 3)."""
        return self.pixels.shape[1:]

    def place(self, part: slice) -> Memory | None:
        """Gives memory for a chunk, in its place if its images have the size of the others; None if any will do."""
        if self._memory is None and part == slice(0, self._count):
            return None

        def memory(shape: tuple[int, ...]) -> Pixels:
            if self._pixels is None:
                self._pixels = (self._memory or new_memory)((self._count, *shape[1:]))
            return self._pixels[part] if self.shape == shape[1:] else new_memory(shape)

        return memory

    def put(self, part: slice, chunk: Pixels) -> bool:
        """Put a chunk in its place, unless it is there; False if its images are of another size."""
        place = self.place(part)
        if place is None:
            self._pixels = np.require(chunk, requirements=["C", "W", "O"])  # copies what is not ours
            return True
        own = place(chunk.shape)
        if self.shape == chunk.shape[1:] and not np.may_share_memory(own, chunk):
            own[:] = chunk
        return self.shape == chunk.shape[1:]


def _checked(source: ImageSet, pixels: Pixels, index: int) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise DataError(
            f"{source.location(index)}: images must be uint8 of shape (H, W, 3), "
            f"but {type(source).__name__} gives {pixels.dtype} of shape {pixels.shape[1:]}."
        )
    return pixels
