"""Decoding, folders, tar archives and image sets of named files."""

import io
import os
import pickle
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from facelab.data.formats.image_header import PNG
from facelab.data.formats.images import PathImages, decode_image
from facelab.data.formats.names import PackedNames
from facelab.data.formats.open_files import open_files
from facelab.errors import CorruptImage, DataError


def picture(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    """Random RGB pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """RGB pixels as an image file."""
    return cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels)[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three people with 1, 2 and 3 images."""
    for person in range(3):
        (tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for number in range(person + 1):
            (tmp_path / "faces" / f"p{person}" / f"{number}.png").write_bytes(encoded(picture(10 * person + number)))
    return tmp_path / "faces"


@pytest.fixture
def archive(folder: Path) -> Path:
    """The same as a tar archive."""
    path = folder.parent / "faces.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            tar.add(file, f"./{file.relative_to(folder)}")
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    """One member of an archive."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tiff"])
def test_decoding_gives_rgb(suffix: str) -> None:
    pixels = picture(0)
    decoded = decode_image(encoded(pixels, suffix), "x")
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, pixels)


def test_grey_becomes_three_channels_and_alpha_is_dropped() -> None:
    grey = picture(1)[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(grey, ".pgm"), "x"), np.repeat(grey[..., None], 3, axis=2))
    pixels = picture(2)
    with_alpha = np.dstack([pixels[..., ::-1], np.full(pixels.shape[:2], 7, np.uint8)])
    np.testing.assert_array_equal(decode_image(cv2.imencode(".png", with_alpha)[1].tobytes(), "x"), pixels)


def pillow_encoded(mode: str, kind: str, **options: Any) -> bytes:
    """A smooth picture of 40x31 as Pillow stores it."""
    image = Image.fromarray(cv2.resize(picture(6, 5, 4), (31, 40), interpolation=cv2.INTER_CUBIC)).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


TURNED = Image.Exif()
TURNED[0x112] = 6  # the camera was held upright


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"quality": 95}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("RGB", "JPEG", {"exif": TURNED}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("P", "PNG", {}),
        ("1", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGBA", "WEBP", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("P", "BMP", {}),
    ],
)
def test_pixels_are_those_of_opencvs_own_order_reversed(mode: str, kind: str, options: dict[str, Any]) -> None:
    data = pillow_encoded(mode, kind, **options)
    blue_first = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    decoded = decode_image(data, "x")
    assert decoded.shape == ((31, 40, 3) if "exif" in options else (40, 31, 3))
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, blue_first[..., ::-1])


def test_sixteen_bits_are_reduced_to_eight() -> None:
    pixels = picture(3)
    wide = cv2.imencode(".png", pixels[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_allclose(decode_image(wide, "x").astype(int), pixels.astype(int), atol=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"^there: the image is empty \(0 bytes\)"),
        (b"hello", r"^there: is not an image, or is damaged \(5 bytes"),
        (encoded(picture(4), ".png")[:60], r"^there: the PNG image is cut off \(60 bytes"),
        (encoded(picture(4, 64, 64), ".jpg")[:900], r"^there: the JPEG image is cut off \(900 bytes"),
    ],
)
def test_damaged_images_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptImage, match=reason):
        decode_image(data, "there")


def test_what_is_wrong_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Libraries of the decoder write on the process's stderr, without the image's name."""
    pixels = picture(0, 64, 64)
    png, ppm, bmp = (encoded(pixels, suffix) for suffix in (".png", ".ppm", ".bmp"))
    tiff = io.BytesIO()
    Image.fromarray(pixels).save(tiff, "TIFF")
    part = png.index(b"IDAT")
    damaged = {
        png[: part + 90] + b"?" + png[part + 91 :]: f"is damaged: its part 'IDAT' at byte {part - 4} has another check",
        png[:16] + b"\0\0\0\x41" + png[20:]: "is damaged: its part 'IHDR' at byte 8 has another checksum",
        png[:-12]: "the PNG image is cut off",
        png[: len(PNG)] + png[len(PNG) + 25 :]: "is not an image, or is damaged",
        tiff.getvalue()[:-50]: "is not an image, or is damaged",
        ppm[:-50]: "is not an image, or is damaged",
        bmp[:-50]: "is not an image, or is damaged",
    }
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", progressive=True)
    height = jpeg.getvalue().index(b"\xff\xc2") + 5
    damaged[jpeg.getvalue()[:height] + b"\0\0" + jpeg.getvalue()[height + 2 :]] = "cannot be decoded|is not an image"
    for data, reason in damaged.items():
        with pytest.raises(CorruptImage, match=reason):
            decode_image(data, "here")
    note = b"\0\0\0\6iCCPname\0\0" + zlib.crc32(b"iCCPname\0\0").to_bytes(4, "big")  # of a colour profile that is none
    for sound in (png + bytes(9), png[:33] + note + png[33:]):
        np.testing.assert_array_equal(decode_image(sound, "here"), pixels)
    assert capfd.readouterr().err == ""


def test_bytes_after_the_end_of_a_jpeg_are_harmless() -> None:
    jpeg = encoded(picture(5, 64, 64), ".jpg")
    np.testing.assert_array_equal(decode_image(jpeg + bytes(100), "x"), decode_image(jpeg, "x"))


def test_path_images_read_the_same_from_folder_and_archive(folder: Path, archive: Path) -> None:
    paths = ["p2/1.png", "p0/0.png", "p2/1.png"]
    loose, packed = PathImages(folder, paths), PathImages(archive, paths)
    assert len(loose) == len(packed) == 3
    for index, seed in enumerate((21, 0, 21)):
        np.testing.assert_array_equal(loose.read(index), picture(seed))
        np.testing.assert_array_equal(packed.read(index), picture(seed))
    assert loose.fingerprint() == packed.fingerprint() != PathImages(folder, paths[:2]).fingerprint()
    assert packed.location(1) == str(archive / "p0/0.png")


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_missing_images_are_counted_at_construction(kind: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(kind)
    with pytest.raises(DataError, match=r"2 of 3 images are missing, the first is 'p9/0\.png'"):
        PathImages(root, ["p0/0.png", "p9/0.png", "p9/1.png"])


def test_a_corrupt_image_is_named_with_its_path(folder: Path) -> None:
    (folder / "p1" / "0.png").write_bytes(b"nonsense")
    with pytest.raises(CorruptImage, match=r"p1/0\.png: is not an image"):
        PathImages(folder, ["p1/0.png"]).read(0)
    (folder / "p1" / "1.png").unlink()
    with pytest.raises(CorruptImage, match=r"p1/1\.png: there is no such image"):
        open_files(folder).read("p1/1.png")


def test_a_file_that_comes_in_part_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (folder / "p0" / "0.png").stat().st_size
    whole = os.read
    monkeypatch.setattr(os, "read", lambda handle, length: whole(handle, length - 1))
    with pytest.raises(CorruptImage, match=rf"p0/0\.png: cannot be read \(only {size - 1} of its {size} bytes came\)"):
        open_files(folder).read("p0/0.png")


def test_missing_and_unknown_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder or archive"):
        open_files(tmp_path / "nowhere")
    (tmp_path / "x.rar").touch()
    with pytest.raises(DataError, match=r"from a folder or from an archive \(\.tar, \.zip, \.tar\.gz, \.tgz\)"):
        open_files(tmp_path / "x.rar")


def test_people_of_folder_and_archive_are_sorted(folder: Path, archive: Path) -> None:
    (folder / "p1" / "notes.txt").touch()
    (folder / "p1" / ".hidden.png").touch()
    expected = [(f"p{k}", [f"p{k}/{n}.png" for n in range(k + 1)]) for k in range(3)]
    assert list(open_files(folder).people()) == expected
    assert list(open_files(archive).people()) == expected


@pytest.mark.parametrize("packed", [False, True])
def test_images_are_found_by_their_stems(packed: bool, folder: Path, tmp_path: Path) -> None:
    """Lists name what was published; what is there may be an aligned PNG, or written by macOS."""
    (folder / "p0").rename(folder / "Jose\u0301")
    (folder / "Jose\u0301" / "0.png").rename(folder / "Jose\u0301" / "m.0\u00e9.PNG")
    root = folder
    if packed:
        root = tmp_path / "faces.tar"
        with tarfile.open(root, "w") as tar:
            tar.add(folder, ".")
    images = PathImages(root, ["p1/0.jpg", "p2/2.png", "p2/1", "Jos\u00e9/m.0e\u0301.jpg"])
    assert [images.name(row) for row in range(4)] == ["p1/0.png", "p2/2.png", "p2/1.png", "Jose\u0301/m.0\u00e9.PNG"]
    for row, seed in enumerate((10, 22, 21, 0)):
        np.testing.assert_array_equal(images.read(row), picture(seed))
    with pytest.raises(DataError, match=r"1 of 2 images are missing, the first is 'p1/7\.jpg'"):
        PathImages(root, ["p1/0.png", "p1/7.jpg"])


def test_a_stem_of_two_images_is_refused(folder: Path) -> None:
    (folder / "p1" / "0.webp").write_bytes(b"another")
    assert PathImages(folder, ["p1/0.png"]).name(0) == "p1/0.png"
    with pytest.raises(DataError, match=r"'p1/0\.jpg' is not there, but 2 images are called like it, 'p1/0\.png' and"):
        PathImages(folder, ["p1/0.jpg"])


def test_hostile_members_are_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "a/good.png", b"good")
        add(tar, "../../etc/passwd")
        add(tar, "/etc/shadow")
        add(tar, "a/link.png", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(tar, "a/hard.png", kind=tarfile.LNKTYPE, link="a/good.png")
        add(tar, "a/pipe.png", kind=tarfile.FIFOTYPE)
        add(tar, "b/twice.png", b"old")
        add(tar, "b/twice.png", b"new!")
    files = open_files(path)
    assert list(files.people()) == [("a", ["a/good.png"]), ("b", ["b/twice.png"])]
    assert files.read("b/twice.png") == b"new!"
    assert len(files.skipped) == 3
    assert "2 left out, a name that leads out of the archive (first: '../../etc/passwd')" in files.skipped[0]
    with pytest.raises(CorruptImage, match="no such image in the archive"):
        files.read("../../etc/passwd")


def test_damaged_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    squeezed = tmp_path / "squeezed.tar"
    with tarfile.open(squeezed, "w:gz") as tar:
        add(tar, "a/b.png")
    with pytest.raises(DataError, match="not an uncompressed tar archive"):
        open_files(squeezed)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(DataError, match=r"cut\.tar: is cut off|damaged"):
        open_files(cut)


def test_reads_from_many_threads_and_from_a_copy(archive: Path) -> None:
    images = PathImages(archive, [f"p2/{n}.png" for n in range(3)])
    copy = pickle.loads(pickle.dumps(images))
    with ThreadPoolExecutor(8) as pool:
        for index, pixels in zip(range(60), pool.map(lambda i: copy.read(i % 3), range(60)), strict=True):
            np.testing.assert_array_equal(pixels, picture(20 + index % 3))


def test_packed_names_behave_like_a_list() -> None:
    names = [b"", b"abc", b"\xff", b"", b"d" * 300]
    packed = PackedNames.of(iter(names))
    assert list(packed) == names
    assert packed[-1] == names[-1]
    assert list(packed[1:4]) == names[1:4]
    with pytest.raises(IndexError):
        packed[5]
    assert len(PackedNames.of([])) == 0


@pytest.mark.real
def test_lfw_archive_is_read_without_unpacking(shared_root: Path) -> None:
    files = open_files(shared_root / "data" / "faces" / "lfw112.tar")
    people = dict(files.people())
    assert (len(people), sum(map(len, people.values()))) == (5749, 13233)
    assert sum(len(images) >= 5 for images in people.values()) == 423
    assert PathImages(files.root, ["Aaron_Peirsol/Aaron_Peirsol_0002.jpg"]).read(0).shape == (112, 112, 3)
