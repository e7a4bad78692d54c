"""Face crops from the videos and images of IJB-S, cut by the ground truth."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.alignment.ijbs_boxes import COLUMNS, read_boxes
from facelab.data.alignment.ijbs_lists import METADATA, VIDEO_FOLDER, crop_stem, find_lists
from facelab.data.base import Pixels
from facelab.data.formats.image_header import MAX_PIXELS
from facelab.data.formats.images import decode_file, resize_image
from facelab.data.loading.ordered_map import ordered_map
from facelab.data.loading.refusals import Refusal
from facelab.errors import CorruptImage, DataError, in_range
from facelab.outside.json import read_json
from facelab.threads import thread_count
from facelab.weights.whole_file import write_whole

RECORD = "crops.json"


@dataclass(frozen=True)
class CropOptions:
    """How faces are cut.

    Attributes:
        size: Side of the crops in pixels.
        margin: How much is added on each side of the square around the box, as a share of its side.
        quality: Of the JPEG files, 1 to 100.
        first_frame: Number that the metadata gives the first frame of a video, 0 or 1.
        columns: See `read_boxes`.
        workers: Videos that are read at the same time, see `facelab.threads.thread_count`.

    Raises:
        ConfigError: If a number is out of range.
    """

    size: int = 112
    margin: float = 0.1
    quality: int = 95
    first_frame: int = 0
    columns: tuple[str, ...] = COLUMNS
    workers: int = 2

    def __post_init__(self) -> None:
        in_range("size", self.size, 16, 1024)
        in_range("margin", self.margin, 0.0, 4.0)
        in_range("quality", self.quality, 1, 100)
        in_range("first_frame", self.first_frame, 0, 1)
        thread_count(self.workers)


@dataclass
class Cut:
    """What became of the faces of one video or image.

    Attributes:
        file: The video or image.
        written: Crops that were written.
        present: Crops that were there already.
        refused: Faces that could not be cut, and why.
    """

    file: str
    written: int = 0
    present: int = 0
    refused: list[Refusal] = field(default_factory=list)

    def __len__(self) -> int:
        """Faces dealt with: written, already there, or refused."""
        return self.written + self.present + len(self.refused)


class CropCutter:
    """The crops ``<subject>/videos_<video>_<frame>.jpg`` and ``<subject>/img_<n>.jpg`` of a raw IJB-S root.

    Where a subject has two boxes in one frame, the last one counts.

    Args:
        root: Folder with ``videos``, ``img`` and the lists.
        out: Where to write. Crops that are there are kept, so that an interrupted run goes on.
        options: How.

    Raises:
        DataError: If the metadata or a video or image that it names is missing, a line is malformed, or ``out`` was
            written with other options.
    """

    def __init__(self, root: Path, out: Path, options: CropOptions) -> None:
        folder, prefix = find_lists(root)
        self.root, self.out, self.options = root, out, options
        metadata = folder / f"{prefix}{METADATA}"
        self.boxes = read_boxes(metadata, options.columns)
        missing = [file for file in self.boxes if not (root / file).is_file()]
        if missing:
            raise DataError(
                f"{root}: {len(missing)} of {len(self.boxes)} videos and images are missing, the first is "
                f"'{missing[0]}', which {metadata}:{self.boxes[missing[0]].line} names."
            )
        self._record = {"size": options.size, "margin": options.margin, "first_frame": options.first_frame}
        self._refuse_other()

    def __len__(self) -> int:
        """All faces."""
        return sum(map(len, self.boxes.values()))

    def cut(self) -> Iterator[Cut]:
        """Cut what is not there yet, one video or image after the other, several at once.

        Raises:
            DataError: If a crop cannot be written.
        """
        write_whole(self.out / RECORD, json.dumps(self._record) + "\n")
        for subject in sorted({subject for boxes in self.boxes.values() for subject in boxes.subjects}):
            (self.out / subject).mkdir(exist_ok=True)
        workers = thread_count(self.options.workers)
        yield from ordered_map(self._cut_file, self.boxes, workers=workers, ahead=workers)

    def _refuse_other(self) -> None:
        if not (self.out / RECORD).exists():
            return
        try:
            before = read_json(self.out / RECORD, "a record of crops")
        except DataError:
            before = "something that cannot be read"
        if before != self._record:
            raise DataError(f"{self.out}: was cut with {before}, not {self._record}; write to another folder.")

    def _cut_file(self, file: str) -> Cut:
        boxes, cut = self.boxes[file], Cut(file)
        table = boxes.table
        stems = [crop_stem(file.rpartition(".")[0], int(frame)) for frame in table[:, 4]]
        targets = [self.out / name / f"{stem}.jpg" for name, stem in zip(boxes.subjects, stems, strict=True)]
        wanted = [row for row, target in enumerate(targets) if not target.exists()]
        cut.present = len(targets) - len(wanted)
        frames = np.array([self._position(file, frame) for frame in table[wanted, 4]], np.int64)
        # Stable: of two boxes of one subject in a frame, the later one is written later, and so it counts.
        order = np.argsort(frames, kind="stable")
        pixels = _frames(self.root / file, np.unique(frames), file.startswith(f"{VIDEO_FOLDER}/"))
        position, image = -1, None
        for place in order.tolist():
            row = wanted[place]
            if frames[place] != position:
                position, image = next(pixels)
            self._cut_face(cut, image, table[row, :4], targets[row])
        return cut

    def _position(self, file: str, frame: float) -> int:
        return int(frame) - self.options.first_frame if file.startswith(f"{VIDEO_FOLDER}/") else 0

    def _cut_face(self, cut: Cut, image: Pixels | None, box: NDArray[np.float64], target: Path) -> None:
        where = f"{cut.file}: {target.parent.name}/{target.name}"
        if image is None:
            cut.refused.append(Refusal(where, "its frame cannot be read."))
            return
        face = square_crop(image, box, self.options.margin)
        if face is None:
            cut.refused.append(Refusal(where, f"its box {box.tolist()} has no pixel of the picture."))
            return
        pixels = resize_image(face, self.options.size, self.options.size)
        _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.options.quality])
        write_whole(target, data.tobytes())
        cut.written += 1


def square_crop(image: Pixels, box: NDArray[np.float64], margin: float) -> Pixels | None:
    """The square around the middle of a box, black where it leaves the picture.

    Args:
        image: RGB, uint8, (H, W, 3).
        box: Left, top, width and height, in pixels.
        margin: Added on each side, as a share of the longer side of the box.

    Returns:
        (S, S, 3), or None if box and picture have no pixel in common.
    """
    left, top, width, height = box.tolist()
    if min(left + width, image.shape[1]) <= max(left, 0.0) or min(top + height, image.shape[0]) <= max(top, 0.0):
        return None
    side = max(1, round(max(width, height) * (1.0 + 2.0 * margin)))
    x, y = round(left + width / 2.0 - side / 2.0), round(top + height / 2.0 - side / 2.0)
    face = np.zeros((side, side, 3), np.uint8)
    # Bounds below 0 would count from the other end.
    inside = image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
    face[max(-y, 0) :, max(-x, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return face


def _frames(path: Path, positions: NDArray[np.int64], is_video: bool) -> Iterator[tuple[int, Pixels | None]]:
    """Some frames, rising, each with its position; None for one that cannot be read."""
    if not len(positions):
        return
    if is_video:
        yield from _video_frames(path, positions.tolist())
        return
    try:
        image: Pixels | None = decode_file(path)
    except CorruptImage:
        image = None
    yield int(positions[0]), image


def _video_frames(path: Path, positions: list[int]) -> Iterator[tuple[int, Pixels | None]]:
    """Frames of a video, which is read from its beginning: seeking is not exact in many formats."""
    video = cv2.VideoCapture(str(path))
    try:
        small = video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT) <= MAX_PIXELS
        at = -1
        for position in positions:
            # grab() moves on without making pixels of the frame; only those that are wanted are retrieved.
            while at < position and small and video.grab():
                at += 1
            image = video.retrieve()[1] if 0 <= at == position else None
            yield position, None if image is None else np.ascontiguousarray(image[:, :, ::-1])
    finally:
        video.release()
