"""The reader of MATLAB files against SciPy's writer, and files that are damaged or hostile."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from facelab.errors import DataError
from facelab.test_protocol.lists.matlab import MAX_BYTES, Struct, read_variable, texts, whole_numbers

HEAD = b"MATLAB 5.0 MAT-file".ljust(124, b"\0")


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(flags: int, shape: tuple[int, ...], rest: bytes, name: bytes = b"x", order: str = "<") -> bytes:
    dims = struct.pack(f"{order}{len(shape)}i", *shape)
    header = element(6, struct.pack(f"{order}II", flags, 0), order) + element(5, dims, order) + element(1, name, order)
    return element(14, header + rest, order)


def saved(path: Path, *variables: bytes, order: str = "<", version: int = 0x100) -> Path:
    mark = struct.pack(f"{order}H", version) + (b"IM" if order == "<" else b"MI")
    path.write_bytes(HEAD + mark + b"".join(variables))
    return path


def cell(depth: int) -> bytes:
    return matrix(1, (1, 1), cell(depth - 1)) if depth else matrix(6, (1, 1), element(9, bytes(8)))


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_scipy_writes(tmp_path: Path, compressed: bool) -> None:
    names = np.array([["a.jpg", "é.png", "long name.jpg"]], object).T
    numbers = np.arange(6).reshape(2, 3)
    content = {"other": np.zeros(9), "names": names, "ids": np.array([[1.0], [2.0], [3.0]]), "bytes": numbers}
    record = np.array([(1.5, "text")], [("value", object), ("word", object)])
    file = tmp_path / "a.mat"
    savemat(file, {**content, "record": record}, do_compression=compressed, oned_as="column")
    assert texts(file, "names") == ["a.jpg", "é.png", "long name.jpg"]
    assert whole_numbers(file, "ids").tolist() == [1, 2, 3]
    np.testing.assert_array_equal(read_variable(file, "bytes"), numbers)
    found = read_variable(file, "record")
    assert isinstance(found, Struct)
    assert found.fields == ("value", "word")
    assert found.rows[0][1] == "text"
    with pytest.raises(DataError, match="has no variable 'nobody'"):
        read_variable(file, "nobody")


def test_reads_the_other_byte_order(tmp_path: Path) -> None:
    values = matrix(6, (2, 1), element(3, struct.pack(">2h", 1, -2), ">"), order=">")
    assert whole_numbers(saved(tmp_path / "a.mat", values, order=">"), "x").tolist() == [1, -2]


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        (matrix(1, (1 << 30, 1 << 30), b""), "items in 0 bytes"),
        (matrix(1, (1000, 1000), b""), "1,000,000 items in 0 bytes"),
        (matrix(1, (-1, 1), b""), "an array of shape"),
        (matrix(6, (1 << 30, 1 << 30), element(9, b"")), "0 bytes do not make an array"),
        (matrix(6, (1, 1), element(9, b"1234")), "4 bytes do not make an array"),
        (matrix(6 | 0x800, (1, 1), element(9, bytes(8))), "something else than cells"),
        (matrix(5, (1, 1), b""), "something else than cells"),
        (matrix(17, (1, 1), b""), "something else than cells"),
        (matrix(4, (1, 5), element(16, b"ab")), "2 characters do not make a text"),
        (matrix(4, (1, 2), element(16, b"\xff\xfe")), "utf-8"),
        (matrix(4, (1, 2), element(9, bytes(16))), "a text of type 9"),
        (matrix(2, (1, 1), element(5, struct.pack("<i", 0)) + element(1, b"abc")), "names of a struct"),
        (matrix(1, (1, 1), element(9, bytes(8))), "something else than arrays"),
        (cell(9), "nested more than 8 deep"),
        (matrix(6, (1, 1), struct.pack("<HH", 9, 5) + bytes(8)), "a small element of 5 bytes"),
        (matrix(6, (1, 1), element(9, bytes(8)))[:-4], "goes beyond the end"),
        (struct.pack("<II", 14, 1 << 31), "goes beyond the end"),
    ],
)
def test_refuses(tmp_path: Path, variable: bytes, reason: str) -> None:
    file = saved(tmp_path / "a.mat", variable)
    with pytest.raises(DataError, match=rf"a\.mat: (is not a readable MATLAB file \(.*{reason}|has no variable 'x')"):
        read_variable(file, "x")


def test_what_is_within_the_limits_is_read(tmp_path: Path) -> None:
    inner = read_variable(saved(tmp_path / "deep.mat", cell(8)), "x")
    for _ in range(8):
        assert isinstance(inner, np.ndarray)
        inner = inner.item()
    assert isinstance(inner, np.ndarray)
    assert inner.tolist() == [[0.0]]
    small = matrix(6, (1, 1), struct.pack("<HHi", 5, 4, 7))
    assert whole_numbers(saved(tmp_path / "small.mat", small), "x").tolist() == [7]


def test_cells_are_read_row_by_row(tmp_path: Path) -> None:
    names = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
    savemat(tmp_path / "a.mat", {"names": names})
    assert texts(tmp_path / "a.mat", "names") == ["a", "b", "c", "d", "e", "f"]


def test_many_empty_items_are_limited(tmp_path: Path) -> None:
    empty = struct.pack("<II", 14, 0)
    file = saved(tmp_path / "a.mat", matrix(1, (1, (1 << 20) + 1), empty * ((1 << 20) + 1)))
    with pytest.raises(DataError, match="1,048,576 that are allowed"):
        read_variable(file, "x")


def test_compressed_variables_are_limited_and_checked(tmp_path: Path) -> None:
    def compressed(data: bytes) -> bytes:
        packed = zlib.compress(data)
        return struct.pack("<II", 15, len(packed)) + packed

    bomb = matrix(6, (1, MAX_BYTES // 8), element(9, bytes(MAX_BYTES)))
    with pytest.raises(DataError, match=r"expands to more than 67,108,864 bytes"):
        read_variable(saved(tmp_path / "bomb.mat", compressed(bomb)), "x")
    sound = compressed(matrix(6, (1, 1), element(9, bytes(8))))
    assert read_variable(saved(tmp_path / "b.mat", compressed(bomb.replace(b"x\0", b"y\0", 1)), sound), "x") == 0
    packed = zlib.compress(matrix(6, (1, 1), element(9, bytes(8))))[:-4]  # all of the content, without its checksum
    with pytest.raises(DataError, match="a compressed variable breaks off"):
        read_variable(saved(tmp_path / "cut.mat", struct.pack("<II", 15, len(packed)) + packed), "x")
    flipped = bytearray(sound)
    flipped[-2] ^= 1
    with pytest.raises(DataError, match="is not a readable MATLAB file"):
        read_variable(saved(tmp_path / "flip.mat", bytes(flipped)), "x")


def test_other_versions_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="saved with -v7.3; save it with -v7"):
        read_variable(saved(tmp_path / "a.mat", version=0x200), "x")
    (tmp_path / "b.mat").write_bytes(b"short")
    with pytest.raises(DataError, match="does not begin with the header"):
        read_variable(tmp_path / "b.mat", "x")


def test_numbers_must_be_whole(tmp_path: Path) -> None:
    for value in (0.5, np.nan, np.inf, 1e300, -1e300, 2.0**53, -(2.0**53)):
        savemat(tmp_path / "a.mat", {"ids": np.array([[1.0], [value]])})
        with pytest.raises(DataError, match="ids is not a column of whole numbers"):
            whole_numbers(tmp_path / "a.mat", "ids")
    savemat(tmp_path / "a.mat", {"ids": np.array([[2.0**53 - 1], [1 - 2.0**53]])})
    assert whole_numbers(tmp_path / "a.mat", "ids").tolist() == [2**53 - 1, 1 - 2**53]


def test_variables_are_limited(tmp_path: Path) -> None:
    """Eight million empty elements fit into a file of the largest size."""
    path = saved(tmp_path / "a.mat", element(9, b"") * 1000, matrix(6, (1, 1), element(9, bytes(8))))
    with pytest.raises(DataError, match="it holds more than 1,000 variables"):
        read_variable(path, "x")
