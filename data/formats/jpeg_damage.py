"""Holes in JPEG images, which the decoder fills with grey or with the wrong blocks and passes off as an image.

JPEG has no checksum. What a decoder of a sound image does is known, though: it needs the last bytes of each run of
compressed data and none after them. Where data is missing or was zeroed, the blocks come to an end before or after the
data does. Finding that out takes further decoding, so only suspicious images are put to the test: those with a run of
zeros in their compressed data, as files with a hole have, and those that end in a block of one colour, which is what
missing data is filled with. Images that take long to decode are not.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np

from facelab.data.base import Pixels
from facelab.data.formats.image_header import SEQUENTIAL, jpeg_segments

START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
ZEROS = bytes(32)  # compressed data is that regular only where large areas have one colour
MARKER = re.compile(rb"\xff+[^\x00\xff]")
MAY_PRECEDE = re.compile(rb"\xff+[\xda\xd0-\xd7]")  # a start of a scan or a restart
MORE = bytes(range(1, 250, 7)) * 4  # compressed data that changes whatever it is decoded to
ALTERED = (0x55, 0x2A, 0x7E)
PROBE = 4  # bytes that are altered
MOST_DECODED = 1 << 27  # pixels in all scans of an image that is put to the test; it is decoded up to eight times
BLOCK = 8
TABLES, AC, END_OF_BLOCK = 0xC4, 1, 0

Decode = Callable[[bytes], Pixels | None]


def is_cut(data: bytes) -> bool:
    """Whether a JPEG has no end marker after its last scan; a preview inside may have one of its own."""
    return not data.endswith(END) and data.rfind(END) < data.rfind(SCAN)


def has_hole(data: bytes, scan: int, pixels: Pixels, decode: Decode) -> bool:
    """Whether compressed data is missing or was zeroed.

    Args:
        data: The encoded image.
        scan: Where its first scan begins.
        pixels: What it was decoded to.
        decode: How; None if the decoder refuses.
    """
    if pixels.size // 3 * data.count(SCAN, scan) > MOST_DECODED:
        return False
    zeros = data.find(ZEROS, scan)
    if 0 <= zeros < _end(data, scan):
        run = _run(data, zeros)
        if run is not None and (not _zeros_mean_flat(data) or _misfits(data, run, pixels, decode)):
            return True
    if _ends_flat(pixels, turned=data.find(b"Exif", 0, scan) >= 0):
        run = _run(data, _end(data, scan) - 1)
        return run is None or _misfits(data, run, pixels, decode)
    return False


def _end(data: bytes, scan: int) -> int:
    """Where the image ends; other things may follow."""
    end = data.find(END, scan)
    return len(data) if end < 0 else end


def _zeros_mean_flat(data: bytes) -> bool:
    """Whether zeros may be blocks of one colour: where the shortest code says that a block ends.

    It does in some optimised tables and, for colour but not for brightness, in the usual ones. Elsewhere zeros are
    hundreds of equal coefficients, which no picture has. Of progressive images nothing is said.
    """
    shortest, sequential = set(), False
    for marker, at in jpeg_segments(data):
        sequential |= marker in SEQUENTIAL
        if marker == TABLES:
            shortest |= set(_shortest_codes(data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]))
    return not sequential or shortest <= {END_OF_BLOCK}


def _shortest_codes(tables: bytes) -> Iterator[int]:
    """What the first code of each table for AC coefficients means."""
    at = 0
    while at + 17 < len(tables):
        if tables[at] >> 4 == AC:
            yield tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])


def _ends_flat(pixels: Pixels, turned: bool) -> bool:
    """Whether the last block has one colour; it is in any corner if the image was turned after decoding."""
    corners = [pixels[-BLOCK:, -BLOCK:]]
    if turned:
        corners += [pixels[:BLOCK, :BLOCK], pixels[:BLOCK, -BLOCK:], pixels[-BLOCK:, :BLOCK]]
    return any(corner.tobytes() == corner[-1, -1].tobytes() * (corner.size // 3) for corner in corners)


def _misfits(data: bytes, run: tuple[int, int], pixels: Pixels, decode: Decode) -> bool:
    """Whether a run of compressed data is too short or too long for the image."""
    start, end = run
    if end - start < 2 * PROBE:
        return False

    def is_read(place: int) -> bool:
        """Whether the pixels change with the bytes at ``place``."""
        before, old, after = data[:place], data[place : place + PROBE], data[place + PROBE :]
        others = (bytes(byte ^ mask for byte in old) for mask in ALTERED)
        return any(not _same(decode(before + other + after), pixels) for other in others)

    too_short = not _same(decode(data[:end] + MORE + data[end:]), pixels)
    return too_short or (not is_read(end - PROBE) and is_read(start))  # of some tables, all data means one colour


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


def _same(found: Pixels | None, pixels: Pixels) -> bool:
    return found is not None and np.array_equal(found, pixels)
