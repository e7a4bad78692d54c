"""From one form of a training set to another: encoded images for records, and folders from records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from facelab.data.base import Pixels, Source
from facelab.data.formats.jpeg_damage import START
from facelab.data.formats.lst_file import LstFile
from facelab.data.formats.record_writer import write_recordio
from facelab.data.formats.writing import written_folder
from facelab.data.shards.parquet_writer import write_parquet
from facelab.data.shards.tar_writer import write_webdataset
from facelab.data.sources.file_source import FileSource
from facelab.data.sources.packed import Packed, write_packed
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.webdataset import WebDataset
from facelab.errors import DataError

PNG_START = b"\x89PNG"


@runtime_checkable
class Stored(Protocol):
    """A source that has its images as encoded files or records."""

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored."""


def encoder(source: Source, quality: int = 95, png: bool = False) -> Callable[[int], bytes]:
    """A function that gives image ``index`` as JPEG or PNG: as stored where it is one of them, else encoded anew.

    Args:
        source: The images.
        quality: JPEG quality, 1..100, of those that have to be encoded.
        png: Encode those as PNG, which loses nothing.
    """

    def encode(index: int) -> bytes:
        if isinstance(source, Stored):
            data = source.encoded(index)
            # Kept as they are: encoding a JPEG a second time would lose detail.
            if data.startswith((START, PNG_START)):
                return data
        return encode_png(source.read(index)) if png else encode_jpeg(source.read(index), quality)

    return encode


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """RGB pixels, uint8, (H, W, 3), as JPEG of ``quality`` 1..100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"an image of {pixels.shape[0]}x{pixels.shape[1]} cannot be written as JPEG.")
    return bytes(np.asarray(data).tobytes())


def encode_png(pixels: Pixels) -> bytes:
    """RGB pixels, uint8, (H, W, 3), as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not done:
        raise DataError(f"an image of {pixels.shape[0]}x{pixels.shape[1]} cannot be written as PNG.")
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
    encode, names = encoder(source), stems(originals or source)
    with written_folder(target) as folder, (folder / "train.txt").open("wb") as listing:
        for index, label in enumerate(source.labels.tolist()):
            data = encode(index)
            name = f"{names(index)}{'.png' if data.startswith(PNG_START) else '.jpg'}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            listing.write(f"{name} {label}\n".encode("utf-8", "surrogateescape"))
            progress(index + 1)


def stems(source: Source) -> Callable[[int], str]:
    """A function that gives the path of image ``index`` without its ending, in what is written of a source.

    It is that which the source has for it, else ``<class>/<number>``.
    """
    digits = len(str(source.num_classes - 1))
    known = _known_names(source)
    found = [] if known is None else [_below(known[index]) for index in range(len(source))]
    # Without regard to case, since A.jpg and a.jpg are one file on the disks of macOS and Windows.
    if found and all(found) and len({stem.casefold() for stem in found}) == len(found):
        return found.__getitem__
    return lambda index: f"{source.labels[index]:0{digits}d}/{index:08d}"


def _known_names(source: Source) -> Sequence[str] | None:
    """Names of a source's images, or None if it does not know them."""
    if isinstance(source, FileSource) or (isinstance(source, Packed) and source.names is not None):
        return [source.name(index) for index in range(len(source))]
    if isinstance(source, WebDataset):
        return [source.name(index).partition("/")[2] for index in range(len(source))]  # without the shard's
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


@dataclass(frozen=True)
class Form:
    """What is written in another form.

    Attributes:
        target: The new folder or file.
        source: The images.
        encoded: Gives image ``index`` as JPEG or PNG.
        per_shard: Images of each file, where there are several.
        workers: Threads that decode, where that is needed.
        progress: Called with the number of images done.
    """

    target: Path
    source: Source
    encoded: Callable[[int], bytes]
    per_shard: int
    workers: int
    progress: Callable[[int], None]


def _webdataset(form: Form) -> None:
    write_webdataset(form.target, form.source, form.encoded, stems(form.source), form.per_shard, form.progress)


def _parquet(form: Form) -> None:
    write_parquet(form.target, form.source, form.encoded, stems(form.source), form.per_shard, form.progress)


def _packed(form: Form) -> None:
    write_packed(form.target, form.source, form.progress, form.workers)


def _recordio(form: Form) -> None:
    if form.target.suffix == ".rec":
        write_recordio(form.target, form.source, form.encoded, progress=form.progress)
        return
    with written_folder(form.target) as folder:
        write_recordio(folder / "train.rec", form.source, form.encoded, progress=form.progress)


FORMS: dict[str, Callable[[Form], None]] = {
    "webdataset": _webdataset,
    "parquet": _parquet,
    "packed": _packed,
    "recordio": _recordio,
}
"""The forms that a source can be written in, by their names on the command line."""
