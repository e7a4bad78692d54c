"""LMDB files that the library writes now, where it is installed."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from facelab.data.shards.lmdb_file import LmdbFile
from facelab.data.sources.lmdb import LMDB
from facelab.errors import DataError

lmdb = pytest.importorskip("lmdb")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(images: Sequence[bytes], labels: Sequence[int], **more: bytes) -> Path:
        with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, map_size=1 << 28) as database:
            for start in range(0, len(images), 100):  # a state each, so that pages are freed and used again
                with database.begin(write=True) as transaction:
                    for n in range(start, min(start + 100, len(images))):
                        image = b"\xc6" + struct.pack(">I", len(images[n])) + images[n]
                        transaction.put(str(n).encode(), b"\x92" + image + b"\xcd" + struct.pack(">H", labels[n]))
            with database.begin(write=True) as transaction:
                for key, value in more.items():
                    transaction.put(key.encode(), value)
        return tmp_path / "a.lmdb"

    return written


def test_a_large_tree_gives_what_the_library_gives(write: Callable[..., Path]) -> None:
    random = np.random.default_rng(0)
    images = [random.bytes(int(size)) for size in random.integers(1, 6000, 1500)]
    path = write(images, [n % 9 for n in range(1500)], __len__=b"\xcd\x05\xdc", __classnum__=b"\x09")
    source = LMDB(path)
    assert [source.encoded(n) for n in range(1500)] == images
    assert source.labels.tolist() == [n % 9 for n in range(1500)]
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as database, database.begin() as transaction:
        expected = list(transaction.cursor())
    file = LmdbFile(path)
    found = zip(file.keys, file.places.tolist(), file.sizes.tolist(), strict=True)
    assert [(key, file.read(place, size)) for key, place, size in found] == expected


def test_counts_that_do_not_fit_are_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="says 5 images, but has 2"):
        LMDB(write([b"a", b"b"], [0, 1], __len__=b"\x05"))
    with pytest.raises(DataError, match="says 3 people, but has 2"):
        LMDB(write([b"a", b"b"], [0, 1], __len__=b"\x02", __classnum__=b"\x03"))
    with pytest.raises(DataError, match="'__len__' is no number"):
        LMDB(write([b"a", b"b"], [0, 1], __len__=b"\xc1"))
    with pytest.raises(DataError, match="key odd: is no image with its label in MessagePack"):
        LMDB(write([b"a", b"b"], [0, 1], odd=b"\x80\x02pickle"))
