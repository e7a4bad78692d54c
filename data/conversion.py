"""From one form of a training set to another: encoded images for records, and folders from records."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from facelab.data.base import Pixels, Source
from facelab.data.jpeg_damage import START
from facelab.data.writing import written_folder
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


def write_image_folder(target: Path, source: Source, progress: Callable[[int], None] = lambda _: None) -> None:
    """Write a source as ``target/<class>/<number>.jpg`` (or ``.png``) and its list ``target/train.txt``.

    Args:
        target: The new folder; it appears when all of it is written, or not at all.
        source: The images.
        progress: Called with the number of images done.

    Raises:
        DataError: If the target exists or the disk is full.
        CorruptImage: If an image cannot be read.
    """
    encode, digits = encoder(source), len(str(source.num_classes - 1))
    with written_folder(target) as folder, (folder / "train.txt").open("w", encoding="ascii") as listing:
        for person in range(source.num_classes):
            (folder / f"{person:0{digits}d}").mkdir()
        for index, label in enumerate(source.labels.tolist()):
            data = encode(index)
            name = f"{label:0{digits}d}/{index:08d}{'.png' if data.startswith(PNG_START) else '.jpg'}"
            (folder / name).write_bytes(data)
            listing.write(f"{name} {label}\n")
            progress(index + 1)
