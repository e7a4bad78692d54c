"""From one form of a training set to another: encoded images for records, and folders from records."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from facelab.data.base import Pixels, Source
from facelab.data.formats.jpeg_damage import START
from facelab.data.formats.lst_file import LstFile
from facelab.data.formats.writing import written_folder
from facelab.data.sources.file_source import FileSource
from facelab.data.sources.packed import Packed
from facelab.data.sources.recordio import RecordIO
from facelab.errors import DataError

PNG_START = b"\x89PNG"


@runtime_checkable
class Stored(Protocol):
    """A source that has its images as encoded files or records."""

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored."""


def encoder(source: Source, quality: int = 95) -> Callable[[int], bytes]:
    """A function that gives image ``index`` as JPEG or PNG: as stored where it is one of them, else as a new JPEG.

    Args:
        source: The images.
        quality: JPEG quality, 1..100, of those that have to be encoded.
    """

    def encode(index: int) -> bytes:
        if isinstance(source, Stored):
            data = source.encoded(index)
            # Kept as they are: encoding a JPEG a second time would lose detail.
            if data.startswith((START, PNG_START)):
                return data
        return encode_jpeg(source.read(index), quality)

    return encode


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """RGB pixels, uint8, (H, W, 3), as JPEG of ``quality`` 1..100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"an image of {pixels.shape[0]}x{pixels.shape[1]} cannot be written as JPEG.")
    return bytes(np.asarray(data).tobytes())


def write_image_folder(
    target: Path, source: Source, progress: Callable[[int], None] = lambda _: None, originals: Source | None = None
) -> None:
    """Write a source as files below ``target``, and its list ``target/train.txt``.

    Files keep the names that the source has for them, so that lists of them still fit: those of files, of images packed
    with their names, and of records whose ``.lst`` lies beside them; only the ending follows what is written. Others
    are ``<class>/<number>.jpg`` (or ``.png``).

    Args:
        target: The new folder; it appears when all of it is written, or not at all.
        source: The images.
        progress: Called with the number of images done.
        originals: Of which the images are made, one for each; files are named as theirs would be.

    Raises:
        DataError: If the target exists or the disk is full.
        CorruptImage: If an image cannot be read.
    """
    encode, names = encoder(source), _stems(originals or source)
    with written_folder(target) as folder, (folder / "train.txt").open("wb") as listing:
        for index, label in enumerate(source.labels.tolist()):
            data = encode(index)
            name = f"{names(index)}{'.png' if data.startswith(PNG_START) else '.jpg'}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            listing.write(f"{name} {label}\n".encode("utf-8", "surrogateescape"))
            progress(index + 1)


def _stems(source: Source) -> Callable[[int], str]:
    """A function that gives the path of image ``index`` without its ending."""
    digits = len(str(source.num_classes - 1))
    known = _known_names(source)
    stems = [] if known is None else [_below(known[index]) for index in range(len(source))]
    # Without regard to case, since A.jpg and a.jpg are one file on the disks of macOS and Windows.
    if stems and all(stems) and len({stem.casefold() for stem in stems}) == len(stems):
        return stems.__getitem__
    return lambda index: f"{source.labels[index]:0{digits}d}/{index:08d}"


def _known_names(source: Source) -> Sequence[str] | None:
    """Names of a source's images, or None if it does not know them."""
    if isinstance(source, FileSource) or (isinstance(source, Packed) and source.names is not None):
        return [source.name(index) for index in range(len(source))]
    listed = source.records.path.with_suffix(".lst") if isinstance(source, RecordIO) else None
    if listed is None or not listed.is_file():
        return None
    found = LstFile(listed)
    if not np.array_equal(found.labels, source.labels):
        return None  # the list of other records
    return [name.decode("utf-8", "surrogateescape") for name in found]


def _below(name: str) -> str:
    """A path below a folder without its ending: of one that leads elsewhere its last two parts; empty if impossible."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        path = PurePosixPath(*path.parts[-2:])
    usable = path.name and ".." not in path.parts and not path.is_absolute() and name == name.strip()
    return path.with_suffix("").as_posix() if usable and "\n" not in name else ""
