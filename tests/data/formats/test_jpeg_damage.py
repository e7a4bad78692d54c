"""Holes in JPEG images are found, and sound images, flat ones too, are left alone."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from facelab.data.base import Pixels
from facelab.data.formats.image_header import jpeg_segments
from facelab.data.formats.images import decode_image
from facelab.errors import CorruptImage

SIDE = 112
LAST_BLOCKS = 400  # bytes, fewer than those of a whole row


def face(seed: int, noise: float = 4.0) -> Pixels:
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 256, (14, 14, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, noise, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int = 95, **flags: int) -> bytes:
    options = [number for name, value in flags.items() for number in (getattr(cv2, f"IMWRITE_JPEG_{name}"), value)]
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *options])[1])


def first_scan(data: bytes) -> int:
    return [at for _, at in jpeg_segments(data)][-1]


def refused(data: bytes) -> bool:
    try:
        decode_image(data, "here")
    except CorruptImage:
        return True
    return False


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("size", [40, 512])
def test_zeroed_part_is_found(quality: int, size: int) -> None:
    for seed in range(10):
        data = jpeg(face(seed), quality)
        at = (first_scan(data) + len(data)) // 2
        with pytest.raises(CorruptImage, match="^here: the JPEG image has a hole"):
            decode_image(data[:at] + bytes(size) + data[at + size :], "here")


def test_zeroed_part_is_found_with_optimised_tables_and_restart_markers() -> None:
    for flags in ({"OPTIMIZE": 1}, {"RST_INTERVAL": 7}, {"PROGRESSIVE": 1}):
        found = 0
        for seed in range(20):
            data = jpeg(face(seed), 90, **flags)
            at = (first_scan(data) + len(data)) // 2
            found += refused(data[:at] + bytes(400) + data[at + 400 :])
        assert found >= 15, flags


@pytest.mark.parametrize(("size", "found"), [(1, 5), (4, 10), (64, 32), (512, 38)])
def test_overwritten_part_is_found_where_the_data_no_longer_ends_with_the_last_block(size: int, found: int) -> None:
    rng = np.random.default_rng(size)
    refusals = 0
    for seed in range(40):
        data = jpeg(face(seed))
        at = int(rng.integers(first_scan(data) + 20, len(data) - size - 20))
        refusals += refused(data[:at] + rng.bytes(size) + data[at + size :])
    assert refusals >= found


def test_missing_part_is_found() -> None:
    found = 0
    for seed in range(40):
        data = jpeg(face(seed))
        at = (first_scan(data) + len(data)) // 2
        found += refused(data[:at] + data[at + 300 + 10 * seed :])
    assert found >= 38


def test_left_over_and_missing_bytes_at_the_end_are_found() -> None:
    for seed in range(10):
        data = jpeg(face(seed))
        assert refused(data[:-2] + bytes(range(1, 200)) + data[-2:])
        assert refused(data[:-12] + data[-2:])


@pytest.mark.parametrize("marker", [0x01, 0x54, 0xC4, 0xD3, 0xFE])
def test_a_marker_inside_the_data_is_damage(marker: int) -> None:
    for seed in range(5):
        data = jpeg(face(seed))
        at = (first_scan(data) + len(data)) // 2
        assert refused(data[:at] + bytes([0xFF, marker]) + data[at + 2 :])


def test_damage_is_told_by_us_and_not_by_the_decoder(capfd: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        data = jpeg(face(seed))
        at = (first_scan(data) + len(data)) // 2
        for damaged in (data[:at] + data[at + 600 :], data[:-2] + bytes(range(1, 200)) + data[-2:]):
            assert refused(damaged)
    assert capfd.readouterr().err == ""


def test_sound_images_of_all_kinds_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    for seed in range(300):
        height, width = rng.integers(1, 120, 2)
        image = Image.fromarray(face(seed, noise=float(rng.integers(0, 9)))[:height, :width])
        image = image.convert(str(rng.choice(["RGB", "L", "CMYK"])))
        if seed % 3 == 0:
            grey = {"L": 128, "RGB": (128,) * 3, "CMYK": (127,) * 4}[image.mode]
            image.paste(grey, (0, int(height) // 2, int(width), int(height)))
        file = io.BytesIO()
        options = {"quality": int(rng.integers(1, 101)), "subsampling": int(rng.integers(3)), "optimize": seed % 2 == 0}
        image.save(file, "JPEG", **options, progressive=seed % 5 == 0, restart_marker_blocks=int(rng.integers(6)))
        decode_image(file.getvalue(), "here")


def test_part_overwritten_with_ones_is_found() -> None:
    for seed in range(20):
        data = jpeg(face(seed))
        at = (first_scan(data) + len(data)) // 2
        assert refused(data[:at] + b"\xff" * 512 + data[at + 512 :])


def test_end_marker_after_half_of_the_data_is_no_end() -> None:
    for seed in range(10):
        data = jpeg(face(seed))
        with pytest.raises(CorruptImage, match="has a hole"):
            decode_image(data[: (first_scan(data) + len(data)) // 2] + b"\xff\xd9", "here")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_missing_blocks_are_found_whichever_way_the_image_is_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for seed in range(3):
        file = io.BytesIO()
        Image.fromarray(face(seed)[:, :80]).save(file, "JPEG", quality=95, exif=exif)
        data = file.getvalue()
        assert decode_image(data, "here").shape == ((SIDE, 80, 3) if orientation < 5 else (80, SIDE, 3))
        for cut in ((first_scan(data) + len(data)) // 2, len(data) - LAST_BLOCKS):
            with pytest.raises(CorruptImage, match="has a hole"):
                decode_image(data[:cut] + b"\xff\xd9", "here")


def test_a_preview_inside_is_not_the_image() -> None:
    data, preview = jpeg(face(0)), jpeg(face(1, noise=1.0)[:40, :40])
    profile = b"\xff\xe2" + (2 + len(preview)).to_bytes(2, "big") + preview
    whole = data[:2] + profile + data[2:]
    np.testing.assert_array_equal(decode_image(whole + b"more", "here"), decode_image(data, "here"))
    with pytest.raises(CorruptImage, match="here: .*cut off"):
        decode_image(whole[:-2], "here")


@pytest.mark.parametrize("shade", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("flags", [{}, {"OPTIMIZE": 1}, {"PROGRESSIVE": 1}, {"RST_INTERVAL": 3}])
@pytest.mark.parametrize("grey", [True, False])
def test_flat_images_are_sound(shade: int, flags: dict[str, int], grey: bool) -> None:
    for height, width in ((SIDE, SIDE), (600, 800), (41, 49), (8, 8), (1, 1)):
        flat = np.full((height, width) if grey else (height, width, 3), shade, np.uint8)
        decode_image(jpeg(flat, **flags), "here")


def test_black_corners_are_sound() -> None:
    for seed in range(20):
        pixels = face(seed)
        pixels[-40:] = 0
        for flags in ({}, {"OPTIMIZE": 1}, {"PROGRESSIVE": 1}):
            decode_image(jpeg(pixels, 60 + seed, **flags), "here")


def test_zeros_outside_the_compressed_data_are_sound() -> None:
    data = jpeg(face(0))
    profile = b"\xff\xe2" + (2 + 1000).to_bytes(2, "big") + bytes(1000)
    preview = jpeg(face(1))
    for sound in (data[:2] + profile + data[2:], data + bytes(1000), data + bytes(100) + preview):
        np.testing.assert_array_equal(decode_image(sound, "here"), decode_image(data, "here"))
