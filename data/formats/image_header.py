"""What an encoded image says of itself before it is decoded: its kind, its size, and of a PNG whether it is whole."""

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from facelab.errors import CorruptImage

MAX_PIXELS = 1 << 26
"""Most pixels of an image, 8192 x 8192, so that photos of 50 megapixels pass; decoding takes up to 12 bytes of each."""
MAX_ENCODED = 1 << 28
"""Most bytes of an encoded image."""
USUAL_SCANS, MAX_SCANS = 20, 200
"""Scans that the largest JPEG may have, and those that a small one may: each costs a pass over all of its pixels."""

KINDS = "JPEG, PNG, BMP, WebP, TIFF, GIF, PBM, PGM, PPM or PAM"
WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))  # JPEG markers that no length follows
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that the size follows
SEQUENTIAL = frozenset((0xC0, 0xC1))  # of these, a scan with all colours is the only one
START_OF_SCAN = 0xDA
# Nine digits at most, leading zeros included: decoders differ in where they end a longer number.
PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+(\d{1,9}+)(?!\d)(?:\s|#[^\r\n]*[\r\n])+(\d{1,9}+)(?!\d)")
PAM = (re.compile(rb"\nWIDTH\s+(\d+)"), re.compile(rb"\nHEIGHT\s+(\d+)"))
PAM_HEADER = 4096  # bytes that it may take
TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
TIFF_SIZES = TIFF_WIDTH, TIFF_HEIGHT, TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT = 256, 257, 322, 323
MOST_TIFF_TAGS = 4096

PNG = b"\x89PNG\r\n\x1a\n"
PNG_FRAME = 12  # bytes of a part beside its content: length, name, checksum
PNG_END = b"IEND"
MOST_PNG_PARTS = 1 << 16  # libpng writes at most 8 KiB a part, and an image has at most 2^28 bytes
PNG_NOTES = frozenset((b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"gAMA", b"cHRM"))

Size = tuple[int, int]  # width, height


def check_size(data: bytes, where: str) -> int:
    """Refuse an image that is too large, or whose size cannot be known before it is decoded.

    Args:
        data: The encoded image.
        where: Names the image in messages.

    Returns:
        Where the first scan of a JPEG begins, 0 for other kinds.

    Raises:
        CorruptImage: If it has more than `MAX_PIXELS`, is none of `KINDS`, or its header is damaged.
    """
    if len(data) > MAX_ENCODED:
        raise CorruptImage(f"{where}: has {len(data):,} bytes, more than the {MAX_ENCODED:,} that an image may have.")
    scan = 0
    try:
        if data.startswith(b"\xff\xd8"):
            (width, height), scan = _jpeg(data)
        else:
            width, height = _reader(data, where)(data)
    except (struct.error, ValueError, IndexError, KeyError, StopIteration):
        raise CorruptImage(
            f"{where}: is not an image, or is damaged: its header gives no size ({len(data)} bytes, "
            f"beginning {data[:4]!r})."
        ) from None
    if width * height > MAX_PIXELS:
        raise CorruptImage(
            f"{where}: is {height}x{width} (height x width), more than the {MAX_PIXELS:,} pixels that are decoded; "
            "make it smaller."
        )
    return scan


def _reader(data: bytes, where: str) -> Callable[[bytes], Size]:
    for signature, reader in READERS:
        if data.startswith(signature):
            return reader
    raise CorruptImage(
        f"{where}: is not an image, or is damaged ({len(data)} bytes, beginning {data[:4]!r}); it must be {KINDS}."
    )


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment of a JPEG, up to the first start of a scan.

    Raises:
        IndexError: If there is none.
        ValueError: Likewise.
    """
    at = 2
    while True:
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0, 0xFF):  # the decoder passes over stray and fill bytes too
            at = data.index(b"\xff", at + 1)
            continue
        yield marker, at
        if marker == START_OF_SCAN:
            return
        at += 2 if marker in WITHOUT_LENGTH else 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _jpeg(data: bytes) -> tuple[Size, int]:
    """Size, and where the first scan begins."""
    size, at, in_one_scan = (0, 0), 0, -1
    for marker, at in jpeg_segments(data):
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            # Decoders differ in which of several frame headers they take, so the largest counts.
            size = max(size, (width, height), key=lambda one: one[0] * one[1])
            in_one_scan = data[at + 9] if marker in SEQUENTIAL else -1
    most = max(USUAL_SCANS, min(MAX_SCANS, USUAL_SCANS * MAX_PIXELS // max(1, size[0] * size[1])))
    # A sequential image whose first scan has all colours ends with it, whatever follows.
    if data[at + 4] != in_one_scan and data.count(b"\xff\xda", at) > most:
        raise ValueError("too many scans")
    return size, at


def _png(data: bytes) -> Size:
    if data[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def png_damage(data: bytes) -> str:
    """What a PNG's checksums say is wrong with it, as the end of a sentence; empty if it is whole, or no PNG."""
    if not data.startswith(PNG):
        return ""
    whole, kind = memoryview(data), b""
    for kind, start, end in _png_parts(data):
        # Of what an image cannot do without, whose names begin with a capital.
        if kind[:1].isupper() and zlib.crc32(whole[start + 4 : end - 4]) != int.from_bytes(whole[end - 4 : end], "big"):
            return f"is damaged: its part {kind.decode('latin-1')!r} at byte {start:,} has another checksum"
    return "" if kind == PNG_END else f"is cut off ({len(data)} bytes, no end)"


def without_notes(data: bytes) -> bytes:
    """A PNG without texts and colour profiles, which OpenCV does not use but libpng complains of; others unchanged."""
    if not data.startswith(PNG):
        return data
    notes = [(start, end) for kind, start, end in _png_parts(data) if kind in PNG_NOTES]
    if not notes:
        return data
    begins, ends = [0, *(end for _, end in notes)], [*(start for start, _ in notes), len(data)]
    return b"".join(data[begin:end] for begin, end in zip(begins, ends, strict=True))


def _png_parts(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and end of each part of a PNG that is there as a whole, up to its end."""
    at = len(PNG)
    for _ in range(MOST_PNG_PARTS):
        if at + PNG_FRAME > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        start, at = at, at + PNG_FRAME + length
        if at > len(data):
            return
        yield kind, start, at
        if kind == PNG_END:
            return


def _bmp(data: bytes) -> Size:
    (header,) = struct.unpack_from("<I", data, 14)
    # OS/2's header of 12 bytes has sizes of 16 bits; a negative height means that the rows go downward.
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size:
    if data[8:12] != b"WEBP":
        raise ValueError("no image")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        # The upper two bits are a scale for display, not part of the size.
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind != b"VP8X" or len(data) < 30:
        raise ValueError("no image")
    return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _pnm(data: bytes) -> Size:
    found = PNM.match(data)
    if found is None:
        raise ValueError("no header")
    return int(found[1]), int(found[2])


def _pam(data: bytes) -> Size:
    header = data[: data.index(b"\nENDHDR", 0, PAM_HEADER)]
    # Where a field stands twice, the largest counts: which one a decoder takes is its choice.
    width, height = (max(int(number) for number in pattern.findall(header)) for pattern in PAM)
    return width, height


def _tiff(data: bytes) -> Size:
    """The larger of image and tile: a tile is decoded as a whole.

    Decoders differ in which of several equal tags they take, and in what types they take.
    """
    tags: dict[int, int] = {}
    for tag, kind, value in _tiff_tags(data):
        if tag in TIFF_SIZES and (tag in tags or kind not in TIFF_TYPES):
            raise ValueError("no size, or several")
        tags[tag] = value
    image = tags[TIFF_WIDTH], tags[TIFF_HEIGHT]
    tile = tags.get(TIFF_TILE_WIDTH, 0), tags.get(TIFF_TILE_HEIGHT, 0)
    return max(image, tile, key=lambda one: one[0] * one[1])


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Tags of the first directory, their types and values; of values that do not fit into it, the place."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43  # BigTIFF
    at = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
    (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)
    at, entry, value = (at + 8, 20, 12) if big else (at + 2, 12, 8)
    if count > MOST_TIFF_TAGS:
        raise ValueError("too many tags")
    for place in range(at, at + entry * count, entry):
        tag, kind = struct.unpack_from(f"{order}HH", data, place)
        yield tag, kind, struct.unpack_from(f"{order}{TIFF_TYPES.get(kind, 'B')}", data, place + value)[0]


READERS: tuple[tuple[bytes, Callable[[bytes], Size]], ...] = (
    (PNG, _png),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"GIF8", _gif),
    (b"P7\n", _pam),
    *((b"P%d" % number, _pnm) for number in range(1, 7)),
)
