"""LMDB: a file that the library wrote is read, and damaged ones are refused."""

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.data.base import SOURCES
from facelab.data.loading.loader import Loader
from facelab.data.loading.samplers import Sequential
from facelab.data.shards.lmdb_file import LmdbFile
from facelab.data.shards.msgpack_value import image_and_label, read_head
from facelab.data.sources.lmdb import LMDB
from facelab.data.sources.open_source import open_source
from facelab.errors import CorruptImage, DataError

# 40 images of 3 people, two of them too large for a leaf page, written with lmdb 3.0.0 (LMDB 0.9.36) and msgpack as
# SOTA-Face-Recognition-Train-and-Test (utils/imagelist2lmdb.py), which HSFace is published for, writes its sets.
GOLDEN = Path(__file__).parents[2] / "golden" / "lmdb" / "hsface.lmdb.gz"
PAGE = 4096


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "hsface.lmdb").write_bytes(gzip.decompress(GOLDEN.read_bytes()))
    return tmp_path / "hsface.lmdb"


def pixels(n: int) -> Any:
    side = 28 if n in (5, 20) else 4
    return np.random.default_rng(n).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_a_published_file_is_read_in_the_order_of_its_numbers(published: Path) -> None:
    source = SOURCES.build("LMDB", {"path": str(published)})
    assert (len(source), source.num_classes) == (40, 3)
    assert source.labels.tolist() == [n % 3 for n in range(40)]
    for n in range(40):
        assert np.array_equal(source.read(n), pixels(n))
    assert (source.name(12), source.location(12)) == ("key 12", f"{published} key 12")
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(20), pixels(20))
    loader = Loader(source, Sequential(source.labels), batch_size=5, workers=1, reader="processes")
    images = next(loader.batches(0)).image.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, np.stack([pixels(n) for n in range(5)]))
    folder = published.parent / "folder"
    folder.mkdir()
    published.rename(folder / "data.mdb")
    assert open_source(folder).fingerprint() == source.fingerprint()


def test_an_older_state_counts_where_the_newer_one_is_not_whole(published: Path) -> None:
    data = bytearray(published.read_bytes())
    newer = max((0, 1), key=lambda page: struct.unpack_from("<Q", data, page * PAGE + 16 + 24 + 96 + 8)[0])
    data[newer * PAGE + 16 : newer * PAGE + 20] = bytes(4)
    published.write_bytes(data)
    if newer == 0:
        with pytest.raises(DataError, match="is no LMDB file"):
            LmdbFile(published)
    else:
        assert b"__len__" not in list(LmdbFile(published).keys)  # written last


@pytest.mark.parametrize(
    ("at", "content", "reason"),
    [
        (10, b"\0\0", "is no LMDB file"),
        (16, b"\0", "is no LMDB file"),
        (20, b"\2", "is LMDB of version 2; version 1 is read"),
        (40, struct.pack("<I", 1000), "says pages of 1000 bytes"),
        (40, struct.pack("<I", 1 << 31), "says pages of 2147483648 bytes"),
    ],
)
def test_a_strange_beginning_is_refused(published: Path, at: int, content: bytes, reason: str) -> None:
    data = bytearray(published.read_bytes())
    data[at : at + len(content)] = content
    published.write_bytes(data)
    with pytest.raises(DataError, match=reason):
        LmdbFile(published)


def states_with(data: bytearray, field: int, form: str, value: int) -> bytearray:
    """The file with a field of its main tree changed in both states."""
    for page in (0, 1):
        struct.pack_into(form, data, page * PAGE + 16 + 24 + 48 + field, value)
    return data


@pytest.mark.parametrize(
    ("field", "form", "value", "reason"),
    [
        (4, "<H", 4, "has several values for a key"),
        (32, "<Q", 99, "says 99 entries, but has 43"),
        (40, "<Q", 10**12, "page 1000000000000: it lies outside of the file"),
        (40, "<Q", 0, "page 0: it is no page of a tree"),
        (40, "<Q", (1 << 64) - 1, "says 43 entries, but has 0"),
    ],
)
def test_a_tree_that_lies_is_refused(published: Path, field: int, form: str, value: int, reason: str) -> None:
    published.write_bytes(states_with(bytearray(published.read_bytes()), field, form, value))
    with pytest.raises(DataError, match=reason):
        LmdbFile(published)


def test_a_circle_of_pages_ends(published: Path) -> None:
    data = bytearray(published.read_bytes())
    file = LmdbFile(published)
    root = next(n for n in range(2, len(data) // PAGE) if data[n * PAGE + 10] == 1 and n in file._seen)
    (node,) = struct.unpack_from("<H", data, root * PAGE + 16)
    struct.pack_into("<HHH", data, root * PAGE + node, root, 0, 0)
    published.write_bytes(data)
    with pytest.raises(DataError, match=f"page {root}: two ways lead to it"):
        LmdbFile(published)


def test_nodes_that_share_their_bytes_are_refused(published: Path) -> None:
    data = bytearray(published.read_bytes())
    leaf = next(n for n in sorted(LmdbFile(published)._seen) if data[n * PAGE + 10] == 2)
    end, node = 1024, 2048
    struct.pack_into("<H", data, leaf * PAGE + 12, end)
    struct.pack_into(f"<{(end - 16) // 2}H", data, leaf * PAGE + 16, *[node] * ((end - 16) // 2))
    struct.pack_into("<HHHH", data, leaf * PAGE + node, 0, 0, 0, 2000)  # 504 keys of 2,000 bytes in a page of 4,096
    published.write_bytes(data)
    with pytest.raises(DataError, match=f"page {leaf}: .* its nodes lie in each other"):
        LmdbFile(published)


def test_a_file_of_holes_takes_no_memory_for_its_size(published: Path) -> None:
    with published.open("r+b") as file:
        file.truncate(1 << 40)
    assert len(LMDB(published)) == 40


def test_no_damage_gives_anything_else_than_an_error_or_images(published: Path) -> None:
    sound, random, reasons = published.read_bytes(), np.random.default_rng(0), list[str]()
    live = sorted(LmdbFile(published)._seen)
    changes: list[tuple[int, bytes]] = [(PAGE * page + at, b"\xff\x7f") for page in live for at in range(0, 40, 2)]
    changes += [(int(at), random.bytes(3)) for at in random.integers(0, len(sound) - 3, 60)]
    for at, content in changes:
        published.write_bytes(sound[:at] + content + sound[at + len(content) :])
        try:
            source = LMDB(published)
            [source.encoded(n) for n in range(len(source))]
        except (DataError, CorruptImage) as error:
            reasons.append(str(error))
    assert len(reasons) > len(changes) // 4
    assert all(reason.startswith(str(published)) for reason in reasons)
    for length in range(0, len(sound), 4000):
        published.write_bytes(sound[:length])
        with pytest.raises(DataError, match=r"hsface\.lmdb"):
            LMDB(published)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x80\x04pickle", "it begins with 80"),
        (b"\x05", "it is no list of image and label"),
        (b"\x92\xc4\x02ab", "it begins with nothing"),
        (b"\x92\xc4\xf0ab\x01", "it is cut off"),
        (b"\x92\xc6\xff\xff\xff\xffab\x01", "it is cut off"),
        (b"\x92\x01\xc4\x02ab", "it is no list"),
        (b"\x92\xc4\x02ab\xff", "it is no list"),
        (b"\x92\xc4\x02ab\x01\x01", "it is no list"),
        (b"\xdd\xff\xff\xff\xff\xc4\x02ab\x01", "it is no list"),
        (b"\x92\xc4\x02ab\xcd\x01", "it is cut off"),
    ],
)
def test_values_of_other_kinds_are_refused(value: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        image_and_label(lambda at, size: value[at : at + size], len(value))


def test_values_of_all_lengths_are_read() -> None:
    for length, head in (
        (3, b"\xc4\x03"),
        (300, b"\xc5\x01\x2c"),
        (70000, b"\xc6\x00\x01\x11\x70"),
        (4, b"\xdb\0\0\0\x04"),
    ):
        for label, tail in (
            (7, b"\x07"),
            (200, b"\xcc\xc8"),
            (70000, b"\xce\x00\x01\x11\x70"),
            (5, b"\xd3" + bytes(7) + b"\5"),
        ):
            value = b"\x93" + head + bytes(length) + b"\xa2no" + tail
            assert image_and_label(lambda at, size, value=value: value[at : at + size], len(value)) == (  # type: ignore[misc]
                1 + len(head), length, label,
            )  # fmt: skip
    assert read_head(b"\xe0").value == -32
