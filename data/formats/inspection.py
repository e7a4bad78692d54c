"""What a source holds: counts without reading images, sizes and faults by reading some or all."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from facelab.data.base import Source
from facelab.data.loading.refusals import Refusals
from facelab.errors import CorruptImage
from facelab.threads import thread_count

CHUNK = 1024  # images between two reports of progress


@dataclass
class Inspection:
    """What reading images of a source showed.

    Attributes:
        read: Images that were read.
        sizes: Number of images of each (height, width).
        corrupt: Images that cannot be read.
        duplicates: Images whose pixels are those of an earlier one.
        conflicts: Duplicates with another label than the earlier image.
    """

    read: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    corrupt: Refusals = field(default_factory=Refusals)
    duplicates: int = 0
    conflicts: int = 0


@dataclass(frozen=True)
class ClassCounts:
    """How many images the classes have.

    Attributes:
        smallest: Fewest images of a class.
        median: Median over the classes.
        largest: Most images of a class.
        single: Classes with one image.
    """

    smallest: int
    median: float
    largest: int
    single: int


def class_counts(source: Source) -> ClassCounts:
    """Images per class, from the labels alone."""
    counts = np.bincount(source.labels, minlength=source.num_classes)
    return ClassCounts(int(counts.min()), float(np.median(counts)), int(counts.max()), int((counts == 1).sum()))


def inspect_images(
    source: Source, rows: Sequence[int], workers: int = 1, progress: Callable[[int], None] = lambda _: None
) -> Inspection:
    """Read some images and count sizes, faults and equal ones.

    Args:
        source: The source.
        rows: Which images.
        workers: Threads that read, see `facelab.threads.thread_count`.
        progress: Called with the number of images done.
    """
    found, first_label = Inspection(), dict[bytes, int]()
    with ThreadPoolExecutor(thread_count(workers)) as pool:
        # In chunks, since a pool takes its whole input at once: a task and a result for each of millions of images.
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            for row, result in zip(chunk, pool.map(lambda row: _look(source, row), chunk), strict=True):
                _count(found, source, row, result, first_label)
            progress(found.read)
    return found


def _look(source: Source, row: int) -> tuple[tuple[int, int], bytes] | CorruptImage:
    """Size and hash of an image, or what is wrong with it."""
    try:
        pixels = source.read(row)
    except CorruptImage as error:
        return error
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()
    return (pixels.shape[0], pixels.shape[1]), digest


def _count(
    found: Inspection,
    source: Source,
    row: int,
    result: tuple[tuple[int, int], bytes] | CorruptImage,
    first_label: dict[bytes, int],
) -> None:
    found.read += 1
    if isinstance(result, CorruptImage):
        found.corrupt.add(source.location(row), str(result))
        return
    size, digest = result
    label = int(source.labels[row])
    earlier = first_label.get(digest)
    found.sizes[size] += 1
    found.duplicates += earlier is not None
    found.conflicts += earlier is not None and earlier != label
    first_label.setdefault(digest, label)
