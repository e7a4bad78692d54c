"""NumPy's files: what NumPy writes comes back, what lies is refused before memory is taken."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.outside.arrays import mapped_npy, parse_npy, read_npz


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.array("text"),
        np.array(5),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
    ],
)
def test_what_numpy_writes_comes_back(array: Any) -> None:
    found = parse_npy(npy(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.flags.writeable


def spoilt(old: bytes, new: bytes) -> bytes:
    data = npy(np.zeros((2, 3)))
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no array of NumPy"),
        (b"no array", "no array of NumPy"),
        (npy(np.zeros(3))[:-1], r"23 bytes do not make float64 \(3,\)"),
        (npy(np.zeros(3)) + b"1", "25 bytes do not make float64"),
        (spoilt(b"(2, 3), }        ", b"(2, 999999999), }"), r"48 bytes do not make float64 \(2, 999999999\)"),
        (spoilt(b"(2, 3)", b"(-2,3)"), r"48 bytes do not make float64 \(-2, 3\)"),
        (spoilt(b"(2, 3), }", b"(-2,-3),}"), r"48 bytes do not make float64 \(-2, -3\)"),
        (spoilt(b"(2, 3)", b"(2, a)"), "no header of an array"),
        (spoilt(b"'<f8'", b"'|O '"), "no header of an array"),
        (spoilt(b"'<f8'", b"'|V0'"), "it holds .*, not numbers or text"),
        (spoilt(b"'<f8'", b"'i,i'"), "it holds .*, not numbers or text"),  # records of as many bytes
        (spoilt(b"'<f8'", b"[[[[["), "no header of an array"),
        (b"\x93NUMPY\x09\x00" + npy(np.zeros(3))[8:], "no array of NumPy"),
        (b"\x93NUMPY\x02\x00\x00\x20\x00\x00" + b"(" * 8192, "no header of an array"),
        (b"\x93NUMPY\x02\x00" + (10_001).to_bytes(4, "little") + b" " * 10_001, "its header has 10,001 bytes"),
    ],
)
def test_refuses(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_npy(content)


def test_maps(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a.npy").write_bytes(npy(array))
    found = mapped_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable
    for spoiled, reason in (
        (npy(array)[:-1], "23 bytes do not make uint8"),
        (b"", "no array of NumPy"),
        (b"\x93NUMPY\x01\x00\x08\x00((((((((", "no header of an array"),
        (npy(array) + b"more", "28 bytes do not make uint8"),
    ):
        (tmp_path / "b.npy").write_bytes(spoiled)
        with pytest.raises(ValueError, match=reason):
            mapped_npy(tmp_path / "b.npy")


def test_archives_are_limited() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, a=np.zeros(100_000), b=np.ones(2))
    found = read_npz(file)
    assert found.keys() == {"a", "b"}
    whole = sum(entry.file_size for entry in zipfile.ZipFile(file).infolist())
    assert read_npz(file, limit=whole, most=2).keys() == found.keys()
    with pytest.raises(ValueError, match=f"it unpacks to {whole:,} bytes, more than"):
        read_npz(file, limit=whole - 1)
    with pytest.raises(ValueError, match=r"it unpacks to 800,\d+ bytes, more than the 1,000"):
        read_npz(file, limit=1000)
    with pytest.raises(ValueError, match="2 arrays, more than the 1"):
        read_npz(file, most=1)
    damaged = bytearray(file.getvalue())
    damaged[60] ^= 0xFF
    with pytest.raises(ValueError, match="while decompressing data"):
        read_npz(io.BytesIO(bytes(damaged)))
    with pytest.raises(ValueError, match="not a zip"):
        read_npz(io.BytesIO(b"nothing"))
    objects = io.BytesIO()
    with zipfile.ZipFile(objects, "w") as archive:
        archive.writestr("a.npy", spoilt(b"'<f8'", b"'|O8'"))
    with pytest.raises(ValueError, match="not numbers or text"):
        read_npz(objects)


def test_names_in_a_damaged_archive_do_not_fill_the_message() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a" * 5000, npy(np.zeros(3)))
    data = file.getvalue().replace(b"a" * 5000, b"b" * 5000, 1)
    with pytest.raises(ValueError, match="File name in directory") as refusal:
        read_npz(io.BytesIO(data))
    assert len(str(refusal.value)) < 300
