"""InsightFace verification packs: one ``.bin`` file with encoded images and answers (LFW, CFP-FP, AgeDB-30 …)."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.base import ImageSet, Pixels
from facelab.data.formats.image_header import MAX_PIXELS
from facelab.data.formats.images import decode_image
from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.metrics.metrics import Booleans, contiguous_folds
from facelab.test_protocol.metrics.pair_scores import DEFAULT_FARS, Fusion, Reject, Rules, Thresholds
from facelab.test_protocol.protocols.verification import Verification
from facelab.weights.plain_pickle import read_plain_pickle

Record = bytes | NDArray[np.uint8]


class PackImages(ImageSet):
    """The images of a pack; pair i is images 2i and 2i + 1.

    An image that is not square is cut to the square in its centre (the reference program fails on it), so that faces
    keep their proportions. Records may be encoded images, as bytes or as uint8 vectors or columns, or decoded RGB
    arrays (H, W, 3).

    Args:
        path: The ``.bin`` file.
        short_side: Resize so that the shorter side has so many pixels before the cut; None leaves the size.

    Attributes:
        same: The answers, (P,).

    Raises:
        ConfigError: If ``short_side`` is not positive.
        DataError: If the file is missing, damaged, not a pack, or a pickle that holds anything but plain data.
    """

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        if short_side is not None and short_side < 1:
            raise ConfigError(f"short_side must be at least 1 pixel, got {short_side}.")
        self.path = Path(path)
        self.short_side = short_side
        self.records, self.same = read_pack(self.path)

    def __len__(self) -> int:
        """Number of images, two for each pair."""
        return len(self.records)

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, square, (H, H, 3)."""
        record = self.records[index]
        if isinstance(record, np.ndarray) and record.ndim == 3:
            return centre_square(record, self.short_side)
        data = record.tobytes() if isinstance(record, np.ndarray) else record
        return centre_square(decode_image(data, self.location(index)), self.short_side)

    def location(self, index: int) -> str:
        """The file and the number of the record, from 0."""
        return f"{self.path}, record {index}"

    def name(self, index: int) -> str:
        """The number of the record, from 0."""
        return f"record {index}"

    def fingerprint(self) -> str:
        """Hash of all records and of the short side."""
        digest = hashlib.blake2b(f"{self.short_side} {self.same.tolist()}".encode(), digest_size=16)
        for record in self.records:
            # Lengths too: bytes that move from one record to the next change the hash.
            digest.update(f"{len(record)} ".encode())
            digest.update(record.tobytes() if isinstance(record, np.ndarray) else record)
        return digest.hexdigest()


@PROTOCOLS.register("BinPack")
class BinPack(Verification):
    """Verification on an InsightFace ``.bin`` pack.

    Packs of 8-bit strings (Python 2), of bytes and of uint8 arrays are read. Reading runs nothing that the file asks
    for: a pickle that needs more than plain data is refused.

    Args:
        path: The ``.bin`` file.
        flip: Whether the embeddings of an image and of its mirror image are joined; published numbers do.
        fusion: How they are joined: ``sum`` as they are (InsightFace), or ``normalised_sum`` (PETALface).
        thresholds: ``exact``, or ``insightface``, ``facexzoo`` or ``magface`` to have that evaluator's number first.
        fars: False accept rates to measure the true accept rate at.
        reject: What error versus reject takes for quality: the scores of the images, where there are some, or the
            ``norm`` of the embeddings.
        folds: Folds of consecutive pairs.
        short_side: Resize images so that the shorter side has so many pixels; the centre square is cut out.
        name: Name in tables; by default that of the file.

    Raises:
        ConfigError: If there are fewer pairs than folds.
        DataError: If the file is missing, damaged or not a pack.
    """

    def __init__(
        self,
        path: Path,
        flip: bool = True,
        fusion: Fusion = "sum",
        thresholds: Thresholds = "exact",
        fars: tuple[float, ...] = DEFAULT_FARS,
        folds: int = 10,
        short_side: int | None = None,
        name: str = "",
        reject: Reject = "quality",
    ) -> None:
        images = PackImages(path, short_side)
        if len(images.same) < folds:
            raise ConfigError(f"{path}: {len(images.same)} pairs cannot be cut into {folds} folds; set folds.")
        pairs = np.arange(len(images), dtype=np.int64).reshape(-1, 2)
        fold = contiguous_folds(len(images.same), folds)
        rules = Rules(flip, fusion, thresholds, fars, reject)
        super().__init__(name or Path(path).stem, images, pairs, images.same, fold, rules)
        self.short_side = short_side

    def options(self) -> Mapping[str, Any]:
        """Settings, and what happens to images that are not square."""
        return {**super().options(), "not_square": "centre crop", "short_side": self.short_side}


def read_pack(path: Path) -> tuple[list[Record], Booleans]:
    """The 2P images of a pack, still encoded, and its P answers.

    Raises:
        DataError: If the file is missing, damaged, not a pack, or a pickle that holds anything but plain data.
    """
    content = read_plain_pickle(path)
    if not isinstance(content, list) or len(content) != 2 or not isinstance(content[0], list):
        raise DataError(f"{path}: is not a verification pack, which holds a list of images and a list of answers.")
    records, answers = content
    for number, record in enumerate(records):
        if not _is_image(record):
            kind = type(record).__name__
            raise DataError(f"{path}, record {number}: expected bytes or a uint8 array of an image, got {kind}.")
    same = _answers(path, answers)
    if not len(same) or len(records) != 2 * len(same):
        raise DataError(f"{path}: {len(same)} answers need {2 * len(same)} images, but there are {len(records)}.")
    return records, same


def _is_image(record: object) -> bool:
    if isinstance(record, np.ndarray):
        encoded = record.ndim == 1 or (record.ndim == 2 and record.shape[1] == 1)
        decoded = record.ndim == 3 and record.shape[2] == 3 and record.size > 0
        return record.dtype == np.uint8 and (encoded or decoded)
    return isinstance(record, bytes)


def _answers(path: Path, answers: object) -> Booleans:
    values = list(answers) if isinstance(answers, (list, np.ndarray)) else [None]
    if not all(isinstance(value, (bool, np.bool_)) or (type(value) is int and value in (0, 1)) for value in values):
        raise DataError(f"{path}: the answers are not a list of bools.")
    return np.array(values, bool)


def centre_square(pixels: Pixels, short_side: int | None = None) -> Pixels:
    """The square in the centre of an image (H, W, 3), after its shorter side was resized if that is asked for."""
    if short_side is not None and min(pixels.shape[:2]) != short_side:
        width, height = short_side_size(pixels.shape[1], pixels.shape[0], short_side)
        # A long strip grows with its shorter side.
        if width * height > MAX_PIXELS:
            raise CorruptImage(
                f"an image would be {height}x{width} (height x width) with a shorter side of {short_side}."
            )
        rule = cv2.INTER_AREA if short_side < min(pixels.shape[:2]) else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=rule), np.uint8)
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def short_side_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height after the shorter side was resized to ``short_side``; the other is rounded down."""
    shorter = min(width, height)
    return width * short_side // shorter, height * short_side // shorter
