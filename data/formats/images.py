"""Encoded images to pixels, and image sets made of named files."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from facelab.data.base import ImageSet, Pixels
from facelab.data.formats.alignment_record import common_folder, read_alignment
from facelab.data.formats.image_header import MAX_ENCODED, check_size, png_damage, without_notes
from facelab.data.formats.jpeg_damage import has_hole, is_cut
from facelab.data.formats.names import PackedNames
from facelab.data.formats.open_files import open_files
from facelab.errors import CorruptImage, DataError
from facelab.outside.file import read_regular
from facelab.quiet_opencv import quiet_opencv


def decode_image(data: bytes, where: str, *, known: bool = False) -> Pixels:
    """Pixels of an encoded image (JPEG, PNG, BMP, WebP, TIFF, GIF, PBM, PGM, PPM, PAM).

    Grey becomes three equal channels, transparency is dropped, 16 bits per channel are reduced to 8, CMYK becomes RGB,
    and an orientation noted in the file (EXIF) is obeyed. Its size is read before anything is decoded.

    Args:
        data: The encoded image.
        where: Names the image in messages: a path, or file and record.
        known: It was decoded before: checksums of a PNG are not computed again, and a JPEG is not searched for holes,
            which takes as long as decoding it.

    Returns:
        RGB, uint8, (H, W, 3), contiguous.

    Raises:
        CorruptImage: If it is empty, cut off, damaged, of an unknown kind, or has more than 2^25 pixels.
    """
    if not data:
        raise CorruptImage(f"{where}: the image is empty (0 bytes).")
    scan = check_size(data, where)
    # The decoder fills what is missing with grey and passes it off as an image.
    if scan and is_cut(data):
        raise CorruptImage(f"{where}: the JPEG image is cut off ({len(data)} bytes, no end marker).")
    if scan and not known and has_hole(data):
        raise CorruptImage(
            f"{where}: the JPEG image has a hole: part of its {len(data)} bytes is missing or was overwritten."
        )
    # The decoder would write what is wrong on the process's stderr, without the image's name.
    if not known and (damage := png_damage(data)):
        raise CorruptImage(f"{where}: the PNG image {damage}.")
    try:
        # RGB from the decoder: turning BGR round afterwards would copy every image once more.
        with quiet_opencv():
            pixels = cv2.imdecode(np.frombuffer(without_notes(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise CorruptImage(f"{where}: cannot be decoded ({error.err}).") from None
    if pixels is None:
        raise CorruptImage(f"{where}: is not an image, or is damaged ({len(data)} bytes, beginning {data[:4]!r}).")
    return np.asarray(pixels, np.uint8)


def decode_file(path: str | Path) -> Pixels:
    """Pixels of an image file; otherwise as `decode_image`.

    Raises:
        CorruptImage: As `decode_image`, or if it is no regular file of at most `MAX_ENCODED` bytes.
    """
    try:
        data = read_regular(path, MAX_ENCODED)
    except OSError as error:
        raise CorruptImage(f"cannot read the image '{path}': {error.strerror}.") from None
    return decode_image(data, str(path))


def resize_image(pixels: Pixels, height: int, width: int) -> Pixels:
    """An image at another size: area averages where it shrinks, bilinear where it grows, itself where it fits.

    Args:
        pixels: uint8, (H, W, 3).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        uint8, (height, width, 3).
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    # Bilinear weights reach the four neighbours only: an image that shrinks to less than half would alias.
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method))


class PathImages(ImageSet):
    """Images by their names below a folder or inside a tar archive, in a given order; names may repeat.

    An image that is not there is taken from the one beside it with another ending, or in Unicode's other form.

    How they were aligned is read from ``alignment.json``, which `facelab data align` writes above them.

    Args:
        root: A folder or an archive (``.tar``, ``.zip``, ``.tar.gz``).
        paths: Names below it, with ``/``.
        wanted_by: Gives the place (file and line) that names image i, for the message if it is missing.

    Raises:
        DataError: If the root or any of the images is missing; the message says how many and which is the first. If
            several could be meant by a name.
    """

    def __init__(self, root: Path, paths: Sequence[str], wanted_by: Callable[[int], str] | None = None) -> None:
        self.files = open_files(Path(root))
        found = [self.files.find(path) for path in paths]
        missing = [row for row, path in enumerate(found) if path is None]
        if missing:
            first = missing[0]
            place = "" if wanted_by is None else f", which {wanted_by(first)} names"
            raise DataError(
                f"{root}: {len(missing)} of {len(paths)} images are missing, the first is '{paths[first]}'{place}."
            )
        names = [path for path in found if path is not None]
        self._paths = PackedNames.of(path.encode("utf-8", "surrogateescape") for path in names)
        # Sizes but no times: a copy of the set on another machine has the same fingerprint.
        self._fingerprint = hash_of(f"{path}\t{self.files.size(path)}" for path in names)
        self.alignment = read_alignment(self.files, common_folder(names))

    def __len__(self) -> int:
        """Number of images."""
        return len(self._paths)

    def name(self, index: int) -> str:
        """Path of image ``index`` below the root."""
        return self._paths[index].decode("utf-8", "surrogateescape")

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        path = self.name(index)
        return decode_image(self.files.read(path), self.files.where(path))

    def location(self, index: int) -> str:
        """The image's path."""
        return self.files.where(self.name(index))

    def fingerprint(self) -> str:
        """Hash of all names and file sizes, in their order."""
        return self._fingerprint

    def revision(self) -> str:
        """Hash of all names, file sizes and stamps of files."""
        return hash_of([self._fingerprint, self.files.revision(map(self.name, range(len(self))))])


def hash_of(lines: Iterable[str]) -> str:
    """A hash (32 hex digits) of some lines of text."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        # With its end, so that other lines of the same letters have another hash.
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
