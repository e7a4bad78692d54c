"""What a Parquet file says of itself, read without the library that would believe it."""

from pathlib import Path
from typing import Any

import pytest

from facelab.data.shards import parquet_layout
from facelab.data.shards.parquet_layout import Chunk, read_layout, unpacked_size
from facelab.data.shards.ranged_file import LocalFile
from facelab.data.shards.thrift_value import ThriftReader

Fields = dict[int, Any]


def number(value: int) -> bytes:
    value, written = (value << 1) ^ (value >> 63), bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def thrift(value: Any) -> tuple[int, bytes]:
    """Kind and bytes of a value: numbers, bytes, lists, and structures as {field: value}."""
    if isinstance(value, bool):
        return (1 if value else 2), b""
    if isinstance(value, int):
        return 6, number(value)
    if isinstance(value, bytes):
        size = number(len(value))
        return 8, bytes([size[0] // 2]) + value  # short ones only; sizes have no sign
    if isinstance(value, list):
        parts = [thrift(one) for one in value]
        return 9, bytes([len(parts) << 4 | (parts[0][0] if parts else 6)]) + b"".join(data for _, data in parts)
    before, written = 0, b""
    for field, one in value.items():
        kind, data = thrift(one)
        written += bytes([(field - before) << 4 | kind]) + data
        before = field
    return 12, written + b"\0"


def element(name: bytes, parts: int = 0) -> Fields:
    return {4: name, 5: parts} if parts else {4: name}


def column(start: int, size: int, unpacked: int, **more: Any) -> Fields:
    return {2: 0, 3: {6: unpacked, 7: size, 9: start} | more.get("told", {})} | more.get("chunk", {})


SCHEMA = [element(b"root", 2), element(b"image", 2), element(b"bytes"), element(b"path"), element(b"label")]
CHUNKS = [column(4, 10, 500), column(14, 0, 0), column(14, 6, 6)]
SOUND: Fields = {1: 2, 2: SCHEMA, 3: 3, 4: [{1: CHUNKS, 2: 0, 3: 3}]}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(tree: Fields) -> LocalFile:
        description = thrift(tree)[1]
        content = b"PAR1" + bytes(20) + description + len(description).to_bytes(4, "little") + b"PAR1"
        (tmp_path / "a.parquet").write_bytes(content)
        return LocalFile(tmp_path / "a.parquet")

    return written


def test_columns_and_places_are_those_of_the_file(write: Any) -> None:
    layout = read_layout(write(SOUND))
    assert layout.columns == ("image.bytes", "image.path", "label")
    assert layout.rows == (3,)
    assert layout.chunks == ((Chunk(4, 10, 500), Chunk(14, 0, 0), Chunk(14, 6, 6)),)
    assert (layout.column("image.bytes"), layout.column("label")) == (0, 2)
    assert layout.description.startswith(b"PAR1")
    assert layout.description.endswith(b"PAR1")


def test_a_dictionary_lies_before_the_data(write: Any) -> None:
    chunks = [column(9, 5, 5, told={11: 4}), column(14, 0, 0, told={11: 0}), CHUNKS[2]]
    layout = read_layout(write(SOUND | {4: [{1: chunks, 3: 1}]}))
    assert [chunk.start for chunk in layout.chunks[0]] == [4, 14, 14]


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({2: SCHEMA[:-1]}, "its schema breaks off"),
        ({2: [*SCHEMA, element(b"more")]}, "its schema is no tree"),
        ({2: 7}, "lacks what each has"),
        ({2: [[0], [1]]}, "lacks what each has"),
        ({4: [{1: CHUNKS[:2], 3: 3}]}, "a row group has other columns than the file"),
        ({4: [{1: CHUNKS}]}, "lacks what each has"),
        ({4: [{1: CHUNKS, 3: True}]}, "lacks what each has"),  # no number
        ({4: [{1: [*CHUNKS[:2], column(14, 7, 7)], 3: 3}]}, None),
        ({4: [{1: [*CHUNKS[:2], column(14, 1 << 40, 7)], 3: 3}]}, "1,099,511,627,776 bytes from 14 on, which lie"),
        ({4: [{1: [*CHUNKS[:2], column(-1, 1, 7)], 3: 3}]}, "which lie outside of it"),
        ({4: [{1: [*CHUNKS[:2], column(14, -1, 7)], 3: 3}]}, "which lie outside of it"),
        ({4: [{1: [*CHUNKS[:2], column(14, 1, -7)], 3: 3}]}, "which lie outside of it"),
        ({4: [{1: [*CHUNKS[:2], {1: b"other", 3: CHUNKS[2][3]}], 3: 3}]}, "lies in another file, or is encrypted"),
        ({4: [{1: [*CHUNKS[:2], {2: 0}], 3: 3}]}, "lies in another file, or is encrypted"),
    ],
)
def test_what_cannot_be_is_refused(tree: Fields, reason: str | None, write: Any) -> None:
    file = write(SOUND | tree)
    if reason is None:
        assert read_layout(file).chunks[0][2].size == 7
        return
    with pytest.raises(ValueError, match=reason):
        read_layout(file)


def test_a_column_ends_before_the_last_eight_bytes(write: Any) -> None:
    def last(size: int) -> Fields:
        return SOUND | {4: [{1: [*CHUNKS[:2], column(14, size, 7)], 3: 3}]}

    room = write(last(100)).size - 8 - 14
    assert read_layout(write(last(room))).chunks[0][2].size == room
    with pytest.raises(ValueError, match=f"has {room + 1} bytes from 14 on, which lie outside"):
        read_layout(write(last(room + 1)))


def test_two_columns_of_one_name_are_none(write: Any) -> None:
    layout = read_layout(write(SOUND | {2: [element(b"root", 3), *[element(b"label")] * 3]}))
    with pytest.raises(ValueError, match="it has 3 columns 'label'"):
        layout.column("label")


def test_descriptions_are_bounded(tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.parquet"
    for content, reason in (
        (b"PAR1" + bytes(20), "does not end as one"),
        (b"", "does not end as one"),
        (bytes(20) + (1 << 31).to_bytes(4, "little") + b"PAR1", "has 2,147,483,648 bytes, of at most 16"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            read_layout(LocalFile(path))
    monkeypatch.setattr(parquet_layout, "MOST_CHUNKS", 2)
    with pytest.raises(ValueError, match="it has 1 row groups of 3 columns"):
        read_layout(write(SOUND))
    monkeypatch.setattr(parquet_layout, "MOST_VALUES", 20)
    with pytest.raises(ValueError, match="has too many values"):
        read_layout(write(SOUND))


def test_pages_say_to_how_much_they_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = b"".join(thrift({1: 0, 2: unpacked, 3: 4})[1] + bytes(4) for unpacked in (100, 1 << 30))
    assert unpacked_size(pages) == 100 + (1 << 30)
    assert unpacked_size(b"") == 0
    for content, reason in (
        (pages[:-1], "a page says 4 bytes, which it does not have"),
        (thrift({1: 0, 2: -5, 3: 0})[1], "a page says 0 bytes"),
        (thrift({1: 0, 2: 5})[1], "a page says nothing of its size"),
        (b"\x19\xfc" + b"\xff" * 20, "more than 64 bits"),
    ):
        with pytest.raises(ValueError, match=reason):
            unpacked_size(content)
    monkeypatch.setattr(parquet_layout, "MOST_PAGES", 1)
    with pytest.raises(ValueError, match="more than 1 pages"):
        unpacked_size(pages)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x1c" * 100, "nested too deep"),
        (b"\x19\x1f" * 100, "kind 15"),
        (b"\x19" + b"\x19" * 100, "too"),
        (b"\x19\xf6\x80\x80\x80\x01", "a list of 2,097,152 values that are not there"),
        (b"\x1b\x80\x80\x80\x01\x66", "values that are not there"),
        (b"\x18\x7fab", "breaks off"),
        (b"\x16", "breaks off"),
        (b"\x1d", "kind 13"),
    ],
)
def test_thrift_that_is_none_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ThriftReader(data, 0, 50).structure()


def test_every_kind_of_thrift_is_read() -> None:
    data = (
        b"\x11\x12\x13\x05\x17" + b"\0\0\0\0\0\0\xf0?" + b"\x29\x21\1\2" + b"\x1b\1\x86\2ab\2\x1b\0" + b"\x06\x28\3\0"
    )
    fields = ThriftReader(data, 0, 100).structure()
    assert fields == {1: True, 2: False, 3: 5, 4: 1.0, 6: [1, 2], 7: [(b"ab", 1)], 8: [], 20: -2}
