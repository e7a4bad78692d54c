"""What data is: sets of images, labelled sources, batches, samplers; and their registries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from facelab.citation import Citation
from facelab.errors import DataError
from facelab.registry import Registry

if TYPE_CHECKING:  # processes that only read images start in a fifth of a second without it
    import torch
    from torch import Tensor

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Memory = Callable[[tuple[int, ...]], Pixels]
"""Gives an array of a shape (B, H, W, 3) to write images into."""

UNKNOWN_ALIGNMENT = "unknown"


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        image: RGB, uint8, (B, 3, H, W), channels_last in memory.
        label: Class of each image, int64, (B,).
        index: Row of each image in its source, int64, (B,). It stays with the host, where tables by row lie.
        quality: Quality score of each image, float32, (B,), if the source has a score table.
        reference: The same images as another network is to see them, uint8, (B, 3, H, W), if a mode asks for it.
        occluded: Which pixels of the images show what random changes put in front of the face, bool, (B, 1, H, W), if a
            mode asks for it.
        draws: What random changes of each image follow from (`facelab.data.transforms.draws.Draws`), uint64, (B,); it
            depends on the run's seed, epoch, step and row of the global batch alone. None outside of training.
    """

    image: "Tensor"
    label: "Tensor"
    index: "Tensor"
    quality: "Tensor | None" = None
    reference: "Tensor | None" = None
    occluded: "Tensor | None" = None
    draws: NDArray[np.uint64] | None = None

    @property
    def size(self) -> int:
        """B."""
        return self.image.shape[0]

    def to(self, device: "torch.device") -> "Batch":
        """The same batch with pixels, labels and scores on ``device``; the copy does not block from pinned memory."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("image", "label")}
        quality = None if self.quality is None else self.quality.to(device, non_blocking=True)
        return replace(self, **moved, quality=quality)


class ImageSet(ABC):
    """A sequence of images that can be read by number, from several threads at once.

    Attributes:
        alignment: How the faces were aligned, one line with hashes (`alignment_record`); ``unknown`` where
            nobody wrote it down. Reports carry it, because alignment changes results more than most losses do. A set
            that aligns while it reads says itself what it does.
    """

    alignment: str = UNKNOWN_ALIGNMENT

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3).

        Raises:
            CorruptImage: If it cannot be read; the message names file and record.
        """

    def read_many(self, indices: NDArray[np.int64]) -> Pixels:
        """Several images of one size as one array, (B, H, W, 3); B is at least 1.

        Sets that hold all pixels in one array override it, as `Packed` does in a third of the time.

        Raises:
            CorruptImage: If one cannot be read; the message names file and record.
            DataError: If the images differ in size; the message names one and both sizes.
        """
        return self._read_rows(indices, new_memory)

    def read_into(self, indices: NDArray[np.int64], memory: Memory) -> Pixels:
        """As `read_many`, into an array that ``memory`` gives for a shape (B, H, W, 3).

        Who overrides it saves a copy, and should override `read_many` too.
        """
        if type(self).read_many is ImageSet.read_many:
            return self._read_rows(indices, memory)
        pixels = self.read_many(indices)
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            return pixels  # which whoever asked refuses
        image = memory(pixels.shape)
        image[:] = pixels
        return image

    def _read_rows(self, indices: NDArray[np.int64], memory: Memory) -> Pixels:
        first = self.read(int(indices[0]))
        shape, is_fit = (len(indices), *first.shape), first.dtype == np.uint8 and first.ndim == 3
        # Filled row by row: a list of images that is stacked at the end would hold all pixels twice.
        pixels = memory(shape) if is_fit else np.empty(shape, first.dtype)
        pixels[0] = first
        for row, index in enumerate(indices[1:].tolist(), start=1):
            image = self.read(index)
            if image.shape != first.shape:
                raise DataError(differing_size(self.location(index), image.shape, first.shape))
            pixels[row] = image
        return pixels

    @abstractmethod
    def location(self, index: int) -> str:
        """Where image ``index`` lies, for messages and reports: a path, or file and record."""

    def name(self, index: int) -> str:
        """Name of image ``index`` in score tables: its place in the set, not where the set lies if that can be told."""
        return self.location(index)

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash (hex) of which images these are, for reports; cheap: lists and file sizes, equal on all machines."""

    def revision(self) -> str:
        """A hash (hex) of the stored images as they are now, for what is kept of them on this machine.

        Other than `fingerprint`, it changes when a file is written anew, also under its old name with its old size:
        it takes in the sizes, the times of change and the numbers (inodes) of all files that are read. A set that
        draws its images, or whose fingerprint is of their content, need not override it; one that is made of others
        must.
        """
        return self.fingerprint()


class Source(ImageSet):
    """A labelled `ImageSet` to train on. Labels are contiguous: 0..num_classes-1, none empty.

    Attributes:
        labels: Class of each image, int64, (N,), without reading any image.
        num_classes: C.
        runs: Number of the first image of each run of neighbours that are best read together, int64, ascending from 0;
            None where any image is read as easily as the next one. The sampler ``ShardShuffle`` keeps to them.
        keeps_runs: Whether such neighbours wait in the memory of the process that read them. Of several processes,
            each would read them once more, so that threads read where nothing else is asked for.
    """

    citation: ClassVar[Citation | None] = None
    labels: Labels
    num_classes: int
    runs: NDArray[np.int64] | None = None
    keeps_runs: bool = False

    def __len__(self) -> int:
        """Number of images, N."""
        return len(self.labels)

    def people_hash(self) -> str:
        """A hash (hex) of whom the labels mean, for checkpoints: names and labels, not where the set lies."""
        return self.fingerprint()


class Sampler(ABC):
    """Which images make an epoch, in which order. A pure function of (epoch, position), so any position can be resumed.

    Every constructor's ``labels`` (N,) and ``seed`` are supplied by the program, and so are the ``runs`` of the source
    where one takes them; other arguments come from YAML.

    Attributes:
        rows_per_group: So many rows in succession belong together, and no batch may cut them apart.
    """

    citation: ClassVar[Citation | None] = None
    rows_per_group: int = 1

    @abstractmethod
    def __len__(self) -> int:
        """Rows in one epoch."""

    @abstractmethod
    def rows(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Index of the image in rows ``start`` to ``stop`` of an epoch, (stop - start,). Same on every process."""


def new_memory(shape: tuple[int, ...]) -> Pixels:
    """An array that nothing is written to yet."""
    return np.empty(shape, np.uint8)


def differing_size(where: str, shape: tuple[int, ...], other: tuple[int, ...]) -> str:
    """The sentence that refuses two sizes in one batch; shapes are (H, W, channels)."""
    return (
        f"{where}: the image is {shape[0]}x{shape[1]}, but others of its batch are {other[0]}x{other[1]}; "
        "align or resize all images to one size."
    )


SOURCES: Registry[Source] = Registry("source", "facelab.data", supplied=("progress",))
SAMPLERS: Registry[Sampler] = Registry("sampler", "facelab.data", supplied=("labels", "seed", "runs"))
