"""Sizes are read from the header, and images that are too large are refused before they are decoded."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from facelab.data.formats.image_header import MAX_PIXELS, MAX_SCANS, READERS, check_size, jpeg_segments
from facelab.data.formats.images import decode_image
from facelab.errors import CorruptImage


def pillow(kind: str, width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), 90).save(file, kind, **options)
    return file.getvalue()


def size_of(data: bytes) -> tuple[int, int]:
    return next(reader for signature, reader in READERS if data.startswith(signature))(data)


@pytest.mark.parametrize(
    "data",
    [
        pillow("PNG", 31, 17),
        pillow("BMP", 31, 17),
        pillow("GIF", 31, 17, "P"),
        pillow("WEBP", 31, 17),
        pillow("WEBP", 31, 17, lossless=True),
        pillow("WEBP", 31, 17, "RGBA", exif=b"Exif\0\0"),
        pillow("TIFF", 31, 17),
        pillow("TIFF", 31, 17, compression="tiff_lzw"),
        pillow("TIFF", 31, 17, big_tiff=True),
        pillow("PPM", 31, 17),
        pillow("PPM", 31, 17, "L"),
        b"P3 # a remark\n#another\r\n31\t17 255\n" + b"1 2 3 " * (31 * 17),
        b"P7\nWIDTH 31\nHEIGHT 17\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(31 * 17 * 3),
    ],
)
def test_size_is_that_of_the_decoded_image(data: bytes) -> None:
    assert size_of(data) == (31, 17)
    if not data.startswith(b"GIF"):  # OpenCV 4 does not decode them
        assert decode_image(data, "here").shape == (17, 31, 3)


def huge_png() -> bytes:
    head = struct.pack(">IIBBBBB", 32_000, 32_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def huge_tiff(width: int, height: int, *more: tuple[int, int]) -> bytes:
    tags = sorted(((256, width), (257, height), *more))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def huge_jpeg(**options: Any) -> bytes:
    data = bytearray(pillow("JPEG", 8, 8, **options))
    at = next(at for marker, at in jpeg_segments(bytes(data)) if marker in (0xC0, 0xC2))
    data[at + 5 : at + 9] = struct.pack(">HH", 40_000, 40_000)
    return bytes(data)


def jpeg_with_hidden_size() -> bytes:
    """The decoder passes over FF 00; whoever takes it for a segment passes over the true size and finds another."""
    small, huge = pillow("JPEG", 8, 8), huge_jpeg()
    places = dict(jpeg_segments(small))
    frame, scan = places[0xC0], places[0xDA]
    end = frame + 2 + int.from_bytes(small[frame + 2 : frame + 4], "big")
    hidden = small[frame:end] + small[scan : scan + 14]
    skipped = huge[frame:end] + b"\xff\xe9" + struct.pack(">H", len(hidden) + 2)
    return small[:frame] + b"\xff\x00" + struct.pack(">H", len(skipped) + 2) + skipped + hidden + small[end:]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (huge_png(), "32000x32000"),
        (huge_jpeg(), "40000x40000"),
        (huge_jpeg(progressive=True), "40000x40000"),
        (jpeg_with_hidden_size(), "40000x40000"),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 30_000, -30_000) + bytes(99), "30000x30000"),
        (b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\xff\x3f\0\xff\x3f\0", "16384x16384"),
        (b"RIFF" + bytes(4) + b"WEBPVP8L" + bytes(5) + b"\xff\xff\xff\xff", "16384x16384"),
        (b"RIFF" + bytes(4) + b"WEBPVP8 " + bytes(10) + b"\xff\x3f\xff\x3f", "16383x16383"),
        (b"GIF89a" + struct.pack("<HH", 65_535, 65_535), "65535x65535"),
        (huge_tiff(1 << 20, 1 << 20), "1048576x1048576"),
        (huge_tiff(10, 10, (322, 1 << 15), (323, 1 << 15)), "32768x32768"),
        (b"P6\n99999 99999\n255\n", "99999x99999"),
        (b"P7\nWIDTH 1\nWIDTH 99999\nHEIGHT 99999\nENDHDR\n", "99999x99999"),
        (b"P7\nWIDTH 00000000099999\nHEIGHT 00000000099999\nENDHDR\n", "99999x99999"),
    ],
)
def test_too_many_pixels_are_refused_before_decoding(data: bytes, shown: str) -> None:
    with pytest.raises(CorruptImage, match=rf"^here: is {shown} \(height x width\), more than the 67,108,864"):
        decode_image(data, "here")


def test_the_limit_itself_is_allowed() -> None:
    assert check_size(b"P6\n8192 8192\n255\n", "here") == 0
    assert MAX_PIXELS == 8192 * 8192
    with pytest.raises(CorruptImage, match="is 8193x8192 "):
        check_size(b"P6\n8192 8193\n255\n", "here")


@pytest.mark.parametrize(
    "data",
    [
        cv2.imencode(".jp2", np.zeros((64, 64, 3), np.uint8))[1].tobytes(),
        cv2.imencode(".hdr", np.zeros((8, 8, 3), np.float32))[1].tobytes(),
        b"\x59\xa6\x6a\x95" + bytes(40),
        b"hello",
    ],
)
def test_other_kinds_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptImage, match=r"^here: is not an image, or is damaged .* it must be JPEG, PNG"):
        decode_image(data, "here")


@pytest.mark.parametrize(
    "data",
    [
        pillow("PNG", 9, 9)[:20],
        pillow("TIFF", 9, 9)[:8],
        pillow("JPEG", 9, 9)[:30],
        pillow("WEBP", 9, 9)[:20],
        b"P6\nmany pixels",
        b"RIFF1234WAVEfmt ",
        b"\xff\xd8" + b"\xff" * 100,
        b"\xff\xd8\xff\xe0\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"P5\n32000 00000000032000\n255\n",
        b"P7\nWIDTH 9\nHEIGHT 9\n" + b"# and so on\n" * 400 + b"WIDTH 32000\nHEIGHT 32000\nENDHDR\n",
        huge_tiff(32_000, 32_000, (256, 10), (257, 10)),
        huge_tiff(10, 10).replace(struct.pack("<HH", 256, 4), struct.pack("<HH", 256, 9)),  # a signed width
    ],
)
def test_damaged_headers_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptImage, match="^here: .*damaged: its header gives no size"):
        check_size(data, "here")


def test_jpegs_with_hundreds_of_scans_are_refused() -> None:
    data = pillow("JPEG", 64, 64, progressive=True)
    check_size(data, "here")
    scan = [at for marker, at in jpeg_segments(data)][-1]
    spare = MAX_SCANS - data.count(b"\xff\xda")
    check_size(data[:scan] + data[scan : scan + 10] * spare + data[scan:], "here")
    with pytest.raises(CorruptImage, match="header gives no size"):
        check_size(data[:scan] + data[scan : scan + 10] * (spare + 1) + data[scan:], "here")


def test_the_larger_a_jpeg_the_fewer_scans_it_may_have() -> None:
    data = bytearray(pillow("JPEG", 64, 64, progressive=True))
    places = dict(jpeg_segments(bytes(data)))
    scan = places[0xDA]
    check_size(data[:scan] + data[scan : scan + 10] * 50 + data[scan:], "here")
    data[places[0xC2] + 5 : places[0xC2] + 9] = struct.pack(">HH", 8192, 8192)
    check_size(bytes(data), "here")
    with pytest.raises(CorruptImage, match="header gives no size"):
        check_size(bytes(data[:scan] + data[scan : scan + 10] * 50 + data[scan:]), "here")
