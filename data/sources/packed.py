"""Images as raw bytes in one memory map: no decoding at all while training."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from facelab.config import Strict
from facelab.data.base import SOURCES, UNKNOWN_ALIGNMENT, Labels, Memory, Pixels, Source, new_memory
from facelab.data.formats.files import stamp
from facelab.data.formats.labels import checked_labels
from facelab.data.formats.mapped_file import MappedFile
from facelab.data.formats.writing import require_space, written_folder
from facelab.errors import DataError
from facelab.outside.arrays import parse_npy
from facelab.outside.file import read_regular
from facelab.outside.json import read_json
from facelab.threads import thread_count

FORMAT = "facelab packed images 1"
PIXELS, LABELS, NAMES, META = "images.u8", "labels.npy", "names.u8", "meta.json"
CHUNK = 256  # images that are decoded ahead of the disk


class PackedMeta(Strict):
    """What ``meta.json`` says.

    Attributes:
        format: Name and version of the format.
        count: N.
        height: Rows of every image.
        width: Columns of every image.
        colour: Order of the channels.
        num_classes: C.
        fingerprint: Hash of all pixels and labels.
        alignment: How the images were aligned, as their source said when they were packed.
    """

    format: str = FORMAT
    count: int
    height: int
    width: int
    colour: str = "RGB"
    num_classes: int
    fingerprint: str
    alignment: str = UNKNOWN_ALIGNMENT


@SOURCES.register("Packed")
class Packed(Source):
    """Images of one size in a folder that ``facelab data pack`` writes.

    ``images.u8`` holds N x height x width x 3 bytes, ``labels.npy`` the labels, ``names.u8`` the name that each image
    had in its source, in UTF-8 with a zero byte behind it, ``meta.json`` sizes and a fingerprint. An image of 112 x 112
    takes 37,632 bytes. Folders of version 0.1 have no names.

    Args:
        path: The folder.

    Raises:
        DataError: If a file is missing, of another version, or its length does not fit the others.

    Attributes:
        meta: What ``meta.json`` says.
        names: What the images were called in their source; None where that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.meta = _read_meta(self.path / META)
        self.alignment = self.meta.alignment
        self._stride = self.meta.height * self.meta.width * 3
        self._pixels = MappedFile(self.path / PIXELS)
        expected = self._stride * self.meta.count
        if self._pixels.size != expected:
            images = f"{self.meta.count} images of {self.meta.height}x{self.meta.width}"
            raise DataError(
                f"{self._pixels.path}: has {self._pixels.size} bytes, but {images} take {expected}; the file is cut "
                f"off or not the one that belongs to {META}."
            )
        labels = _read_labels(self.path / LABELS, self.meta.count)
        self.labels, self.num_classes = checked_labels(labels, str(self.path / LABELS), relabel=False)
        self.names = StoredNames(self.path / NAMES, len(self)) if (self.path / NAMES).exists() else None

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3); a copy that the caller may change."""
        row = range(len(self))[index]
        data = self._pixels.view(row * self._stride, (row + 1) * self._stride)
        # Without the copy, whoever keeps the image keeps a view of the mapped file.
        return np.frombuffer(data, np.uint8).reshape(self.meta.height, self.meta.width, 3).copy()

    def read_many(self, indices: NDArray[np.int64]) -> Pixels:
        """Several images as one array, (B, H, W, 3), in one copy: half the time of one by one."""
        return self.read_into(indices, new_memory)

    def read_into(self, indices: NDArray[np.int64], memory: Memory) -> Pixels:
        """As `read_many`, into an array that ``memory`` gives."""
        pixels = memory((len(indices), self.meta.height, self.meta.width, 3))
        self._pixels.rows(indices, pixels.reshape(len(indices), self._stride))
        return pixels

    def location(self, index: int) -> str:
        """File and number of the image."""
        return f"{self._pixels.path} image {index}"

    def name(self, index: int) -> str:
        """What its source called the image, so that lists and score tables still fit; else its number."""
        return f"image {index}" if self.names is None else self.names[index]

    def fingerprint(self) -> str:
        """Hash of all pixels and labels, made when they were packed."""
        return self.meta.fingerprint

    def revision(self) -> str:
        """The same and the stamp of the pixels' file."""
        return f"{self.meta.fingerprint} {stamp(self._pixels.path)}"


class StoredNames:
    """The names of images in a file, each with a zero byte behind it; they stay there until they are asked for.

    Args:
        path: The file.
        count: Number of images.

    Raises:
        DataError: If it has more or fewer names.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._file = MappedFile(path)
        content = np.frombuffer(self._file.view(0, self._file.size), np.uint8)
        self._ends = np.flatnonzero(content == 0)
        if len(self._ends) != count or self._ends[-1] != self._file.size - 1:
            raise DataError(f"{path}: has {len(self._ends)} names for {count} images; remove it to do without names.")

    def __getitem__(self, index: int) -> str:
        """Name of image ``index``."""
        row = range(len(self._ends))[index]
        start = int(self._ends[row - 1]) + 1 if row else 0
        return bytes(self._file.view(start, int(self._ends[row]))).decode("utf-8", "surrogateescape")


def write_packed(
    target: Path, source: Source, progress: Callable[[int], None] = lambda _: None, workers: int = 1
) -> Packed:
    """Decode a source once and write it as `Packed`; the folder appears when all of it is written, or not at all.

    Args:
        target: The new folder.
        source: Images of one size.
        progress: Called with the number of images done.
        workers: Threads that decode, see `facelab.threads.thread_count`.

    Raises:
        DataError: If images differ in size, the target exists, or the disk is full.
        CorruptImage: If an image cannot be read.
    """
    height, width, _ = source.read(0).shape
    require_space(target, (height * width * 3 + 8) * len(source))
    digest = hashlib.blake2b(np.ascontiguousarray(source.labels).data, digest_size=16)
    with written_folder(target) as folder, ThreadPoolExecutor(thread_count(workers)) as pool:
        np.save(folder / LABELS, source.labels)
        with (folder / NAMES).open("wb") as file:
            for row in range(len(source)):
                file.write(source.name(row).replace("\0", "").encode("utf-8", "surrogateescape") + b"\0")
        with (folder / PIXELS).open("wb") as file:
            rows = iter(range(len(source)))
            while chunk := list(islice(rows, CHUNK)):
                for row, pixels in zip(chunk, pool.map(source.read, chunk), strict=True):
                    data = _same_size(pixels, height, width, source, row).tobytes()
                    # On the way to the disk: a second pass over all pixels for the fingerprint would take as long as
                    # writing them.
                    digest.update(data)
                    file.write(data)
                progress(chunk[-1] + 1)
        meta = PackedMeta(
            count=len(source),
            height=height,
            width=width,
            num_classes=source.num_classes,
            fingerprint=digest.hexdigest(),
            alignment=source.alignment,
        )
        (folder / META).write_text(meta.model_dump_json(indent=1) + "\n")
    return Packed(target)


def _same_size(pixels: Pixels, height: int, width: int, source: Source, row: int) -> Pixels:
    if pixels.shape == (height, width, 3):
        return pixels
    raise DataError(
        f"{source.location(row)}: is {pixels.shape[0]}x{pixels.shape[1]}, but the first image is {height}x{width}; "
        "give a size, so that all are brought to it."
    )


def _read_meta(path: Path) -> PackedMeta:
    given: Any = read_json(path, "the description of packed images")
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise DataError(f"{path}: is not of the format '{FORMAT}'.")
    try:
        meta = PackedMeta.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: '{'.'.join(map(str, first['loc']))[:200]}': {first['msg']}.") from None
    if min(meta.count, meta.height, meta.width) < 1 or meta.colour != "RGB":
        raise DataError(f"{path}: says {meta.count} images of {meta.height}x{meta.width} in {meta.colour} order.")
    return meta


def _read_labels(path: Path, count: int) -> Labels:
    try:
        labels = parse_npy(read_regular(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        raise DataError(f"{path}: is no array of labels ({error}).") from None
    if labels.dtype != np.int64 or labels.shape != (count,) or labels.min() < 0:
        raise DataError(f"{path}: must hold {count} whole numbers (int64) from 0.")
    return labels
