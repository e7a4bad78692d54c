"""Holes in JPEG images, which the decoder fills with grey or with the wrong blocks and passes off as an image.

JPEG has no checksum. What a decoder of a sound image does is known, though: its last block needs the last bits of the
compressed data, and none are left. Where bytes are missing, zeroed or others, it mostly falls out of step and has read
another number of blocks when the data ends. The test is a second pass over the compressed data, which takes as long as
decoding a small image; those that fail it are decoded a few times more to be sure. Images whose data is in several runs
(progressive ones, those with restart markers or with a scan for each colour) are put to the test only where they look
suspicious: a run of zeros in the compressed data, or a last block of one colour, which is what missing data is filled
with.

Decoding here is Pillow's: OpenCV's decoder writes what it makes of damaged data on the process's stderr.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from facelab.data.base import Pixels
from facelab.data.formats.image_header import FRAMES, SEQUENTIAL, jpeg_segments

START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
ZEROS = bytes(32)  # compressed data is that regular only where large areas have one colour
MARKER = re.compile(rb"\xff+[^\x00\xff]")
MAY_PRECEDE = re.compile(rb"\xff+[\xda\xd0-\xd7]")  # a start of a scan or a restart
MORE = tuple(bytes(range(first, first + 50, 7)) * 16 for first in (1, 90, 180))  # other data than the decoder makes up
ALTERED = (0x55, 0x2A, 0x7E)
PROBE = 4  # bytes that are altered
MOST_DECODED = 1 << 27  # pixels in all scans of an image that is put to the test; it is decoded up to eight times
BLOCK, HIGHEST = 8, 65500
LARGE = 1 << 22  # pixels; of larger images, only the mean of each block is compared
GREY = 128  # what a block is that was never read
TABLES, RESTARTS, AC, END_OF_BLOCK = 0xC4, 0xDD, 1, 0
GREY_OR_RGB = (1, 3)
MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True)
class Frame:
    """What the header of a JPEG says.

    Attributes:
        at: Where the last start of a frame is.
        scan: Where the first scan begins.
        height: Rows, in pixels.
        width: Columns, in pixels.
        components: Colours.
        block: Rows and columns of blocks that are compressed together.
        sequential: Whether all that there is to a block of one colour comes at once.
        interleaved: Whether that is so for all colours.
        restarts: Whether the compressed data is in several runs.
    """

    at: int
    scan: int
    height: int
    width: int
    components: int
    block: tuple[int, int]
    sequential: bool
    interleaved: bool
    restarts: bool

    @classmethod
    def of(cls, data: bytes) -> "Frame":
        """The frame of an image whose header is sound."""
        kind = at = scan = 0
        restarts = False
        for marker, place in jpeg_segments(data):
            if marker in FRAMES:
                kind, at = marker, place
            restarts |= marker == RESTARTS
            scan = place
        height, width = (int.from_bytes(data[place : place + 2], "big") for place in (at + 5, at + 7))
        components, sequential = data[at + 9], kind in SEQUENTIAL
        factors = data[at + 11 : at + 11 + 3 * components : 3]
        block = max((factor & 15 for factor in factors), default=0), max((factor >> 4 for factor in factors), default=0)
        if components == 1 or not all(block):
            block = 1, 1  # the factors of a single component mean nothing
        interleaved = sequential and data[scan + 4] == components
        return cls(at, scan, height, width, components, block, sequential, interleaved, restarts)

    @property
    def reduction(self) -> int:
        """By what factor the image is reduced when it is decoded to be compared."""
        return BLOCK if self.height * self.width > LARGE else 1

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns, in pixels, of all blocks, those too that lie partly outside."""
        if not self.interleaved:  # the scans of single colours have no such blocks
            return self.height, self.width
        rows, columns = (BLOCK * count for count in self.block)
        return -(-self.height // rows) * rows, -(-self.width // columns) * columns


def is_cut(data: bytes) -> bool:
    """Whether a JPEG has no end marker after its last scan; a preview inside may have one of its own."""
    return not data.endswith(END) and data.rfind(END) < data.rfind(SCAN)


def has_hole(data: bytes) -> bool:
    """Whether compressed data is missing, or was overwritten so that it no longer ends with the last block.

    Args:
        data: An encoded image whose header is sound.
    """
    frame = Frame.of(data)
    # The decoder refuses what has no size.
    if not 0 < frame.height * frame.width * data.count(SCAN, frame.scan) <= MOST_DECODED:
        return False
    end = data.find(END, frame.scan)  # other things may follow
    end = len(data) if end < 0 else end
    zeros = data.find(ZEROS, frame.scan, end)
    run = None if zeros < 0 else _run(data, zeros)
    if run is not None and not _zeros_mean_flat(data, frame):
        return True
    if frame.interleaved and not frame.restarts and frame.components in GREY_OR_RGB:
        return _ends_elsewhere(data, frame, end)
    if run is not None and _misfits(data, run, frame):
        return True
    pixels = _decoded(data, frame)
    last = BLOCK // frame.reduction
    if pixels is None or not _is_flat(pixels[-last:, -last:]):
        return False
    run = _run(data, end - 1)
    return run is None or _misfits(data, run, frame)


def _ends_elsewhere(data: bytes, frame: Frame, end: int) -> bool:
    """Whether the data of an image in one run ends before or after the last block."""
    first, others = _added_row_is_grey(data[:end], frame)
    if first:
        # The padding of a sound image may mean a grey block as well: only appended data tells the two apart.
        return MARKER.search(data, frame.scan + 2, end) is not None or _is_too_short(data, end, frame)
    # Padding may also mean more than one block: data is left over only if the row fills without the last bytes too.
    return not others and not _added_row_is_grey(data[: end - PROBE], frame)[0]


def _added_row_is_grey(data: bytes, frame: Frame) -> tuple[bool, bool]:
    """Decode an image that is said to be a row of blocks taller: whether the first of these is grey, and the others.

    The decoder fills up what it lacks to end a block, and from then on takes blocks for grey. With a sound image that
    is the first block of the additional row, which becomes what a few bits of padding make of it; the others are grey.
    Where data is missing, the first one is grey too, and where data is left, others are not.
    """
    height, width = frame.padded
    rows, columns = frame.block
    image = _pillow(data + END, frame, "L", (height + BLOCK * rows, width), BLOCK)
    if image is None:
        return True, True  # the decoder met something other than an end
    pixels, width = image.tobytes(), width // BLOCK
    added = [pixels[place : place + width] for place in range(len(pixels) - rows * width, len(pixels), width)]
    first, others = b"".join(row[:columns] for row in added), b"".join(row[columns:] for row in added)
    return first.count(GREY) == len(first), others.count(GREY) == len(others)


def _zeros_mean_flat(data: bytes, frame: Frame) -> bool:
    """Whether zeros may be blocks of one colour: where the shortest code says that a block ends.

    It does in some optimised tables and, for colour but not for brightness, in the usual ones. Elsewhere zeros are
    hundreds of equal coefficients, which no picture has. Of progressive images nothing is said.
    """
    shortest = set()
    for marker, at in jpeg_segments(data):
        if marker == TABLES:
            shortest |= set(_shortest_codes(data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]))
    return not frame.sequential or shortest <= {END_OF_BLOCK}


def _shortest_codes(tables: bytes) -> Iterator[int]:
    """What the first code of each table for AC coefficients means."""
    at = 0
    while at + 17 < len(tables):
        if tables[at] >> 4 == AC:
            yield tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])


def _misfits(data: bytes, run: tuple[int, int], frame: Frame) -> bool:
    """Whether a run of compressed data is too short or too long for the image."""
    start, end = run
    pixels = _decoded(data, frame)
    if pixels is None or end - start < 2 * PROBE:
        return False

    def is_read(place: int) -> bool:
        """Whether the pixels change with the bytes at ``place``."""
        before, old, after = data[:place], data[place : place + PROBE], data[place + PROBE :]
        others = (bytes(byte ^ mask for byte in old) for mask in ALTERED)
        return any(not _same(_decoded(before + other + after, frame), pixels) for other in others)

    # Of some tables, all data means one colour.
    return _is_too_short(data, end, frame) or (not is_read(end - PROBE) and is_read(start))


def _is_too_short(data: bytes, end: int, frame: Frame) -> bool:
    """Whether the pixels change with what follows the compressed data that ends at ``end``."""
    pixels = _decoded(data, frame)
    if pixels is None:
        return False
    return any(not _same(_decoded(data[:end] + more + data[end:], frame), pixels) for more in MORE)


def _run(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the compressed data around ``at`` begins and ends; None if it follows no scan's header and no restart."""
    marker = None
    for marker in MARKER.finditer(data, 0, at):  # noqa: B007 (the last one is needed)
        pass
    if marker is None or not MAY_PRECEDE.match(marker[0]):
        return None
    start = marker.end()
    if marker[0].endswith(SCAN):
        start += int.from_bytes(data[start : start + 2], "big")
    following = MARKER.search(data, at)
    return start, len(data) if following is None else following.start()


def _decoded(data: bytes, frame: Frame) -> Pixels | None:
    """All blocks of an image or their means, in whatever colours it has, not turned; None if it cannot be decoded."""
    image = _pillow(data, frame, MODES.get(frame.components, ""), frame.padded, frame.reduction)
    return None if image is None else np.asarray(image)


def _pillow(data: bytes, frame: Frame, mode: str, size: tuple[int, int], reduction: int = 1) -> Image.Image | None:
    """An image of another size than its header says, as Pillow's decoder makes it."""
    height, width = size
    if max(size) > HIGHEST:
        return None
    said = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    data = b"".join((data[: frame.at + 5], said, data[frame.at + 9 :]))
    try:
        reduced = (-(-width // reduction), -(-height // reduction))
        return Image.frombytes(mode, reduced, data, "jpeg", mode, "", reduction, 0)
    except ValueError:
        return None


def _is_flat(pixels: Pixels) -> bool:
    return bool((pixels == pixels[-1, -1]).all())


def _same(found: Pixels | None, pixels: Pixels) -> bool:
    return found is not None and bool(np.array_equal(found, pixels))
