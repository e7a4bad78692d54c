"""RecordIO: real MXNet files record by record, the writer's bytes, layouts, and hostile files."""

import contextlib
import hashlib
import itertools
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.data.base import SOURCES
from facelab.data.formats.mapped_file import MappedFile
from facelab.data.formats.record_writer import RecordLayout, encoded_record, labelled, record_writer, write_recordio
from facelab.data.formats.records import MAGIC_BYTES, Record, RecordFile, scan, unpack, write_index
from facelab.data.sources import recordio
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.recordio import RecordIO
from facelab.errors import CorruptImage, DataError

# content -> what MXNet 1.9.1 writes for it
BY_HAND = {
    b"": "0a23d7ce 00000000",
    b"abc": "0a23d7ce 03000000 61626300",
    b"abcde": "0a23d7ce 05000000 6162636465000000",
    MAGIC_BYTES: "0a23d7ce 00000020 0a23d7ce 00000060",
    b"head" + MAGIC_BYTES * 2 + b"t": "0a23d7ce 04000020 68656164 0a23d7ce 00000040 0a23d7ce 01000060 74000000",
    b"x" + MAGIC_BYTES + b"yz": "0a23d7ce 07000000 78 0a23d7ce 797a 00",
}


def write(path: Path, contents: list[bytes]) -> Path:
    with record_writer(path) as writer:
        for key, content in enumerate(contents):
            writer.write(key, content)
    return path


@pytest.fixture
def source(faces: Path) -> ImageFolder:
    return ImageFolder(faces)


def test_the_writer_gives_the_bytes_of_mxnet(tmp_path: Path) -> None:
    for content, expected in BY_HAND.items():
        assert encoded_record(content).hex() == expected.replace(" ", "")
    path = write(tmp_path / "a.rec", list(BY_HAND))
    assert path.with_suffix(".idx").read_text() == "0\t0\n1\t8\n2\t20\n3\t36\n4\t52\n5\t84\n"
    assert [RecordFile(path).content(row) for row in range(len(BY_HAND))] == list(BY_HAND)


def test_contents_of_magic_numbers_and_odd_lengths_come_back(tmp_path: Path) -> None:
    pieces = (b"", b"a", b"abcd", MAGIC_BYTES)
    contents = [b"".join(chosen) for chosen in itertools.product(pieces, repeat=4)]
    path = write(tmp_path / "a.rec", contents)
    records = RecordFile(path)
    assert [records.content(row) for row in range(len(records))] == contents
    assert list(scan(MappedFile(path))) == records.offsets.tolist()
    copy = pickle.loads(pickle.dumps(records))
    assert copy.content(77) == contents[77]


def test_random_contents_come_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words = np.frombuffer(MAGIC_BYTES + b"abcdefgh", "<u4")
    contents = [random.choice(words, random.integers(0, 9)).tobytes()[random.integers(0, 4) :] for _ in range(300)]
    records = RecordFile(write(tmp_path / "a.rec", contents))
    assert [records.content(row) for row in range(300)] == contents


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("array_labels", [True, False])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_source_comes_back(
    tmp_path: Path, source: ImageFolder, header: bool, array_labels: bool, indexed: bool
) -> None:
    path = tmp_path / "out" / "train.rec"
    done: list[int] = []
    write_recordio(path, source, source.encoded, RecordLayout(header, array_labels), done.append)
    assert done == [1, 2, 3, 4, 5, 6]
    if not indexed:
        path.with_suffix(".idx").unlink()
    back = SOURCES.build("RecordIO", {"path": str(path.parent)})
    assert back.labels.tolist() == source.labels.tolist()
    assert back.labels.dtype == np.int64
    assert back.num_classes == 3
    for index in range(6):
        np.testing.assert_array_equal(back.read(index), source.read(index))
    assert (path.parent / "property").read_text() == "3,12,10"
    assert path.with_suffix(".lst").read_text().splitlines()[0] == f"{int(header)}\t0\t{source.name(0)}"
    assert back.location(0) == f"{path} record {int(header)} (offset {back.records.offsets[int(header)]})"
    assert len(list(path.parent.iterdir())) == 3 + indexed


def test_header_and_identity_records_are_insightfaces(tmp_path: Path, source: ImageFolder) -> None:
    write_recordio(tmp_path / "a.rec", source, source.encoded)
    records = RecordFile(tmp_path / "a.rec")
    assert records.keys.tolist() == list(range(10))
    found = [(record.flag, record.labels.tolist(), record.id) for record in map(records.record, (0, 1, 7, 8, 9))]
    assert found == [(2, [7, 10], 0), (0, [0], 1), (2, [1, 2], 7), (2, [2, 4], 8), (2, [4, 7], 9)]


def test_labels_by_identity_records_are_checked(
    tmp_path: Path, source: ImageFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recordio, "MANY", 1)
    write_recordio(tmp_path / "a.rec", source, source.encoded)
    assert RecordIO(tmp_path / "a.rec").labels.tolist() == source.labels.tolist()
    assert not caplog.records
    contents = [RecordFile(tmp_path / "a.rec").content(row) for row in range(10)]
    contents[4] = labelled(1, 4, unpack(contents[4], "x").image)  # the first image of the third person
    write(tmp_path / "mixed.rec", contents)
    (tmp_path / "property").unlink()
    assert RecordIO(tmp_path / "mixed.rec").labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert "contradict" in caplog.text


def test_write_index_numbers_from_zero(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", list(BY_HAND))
    expected = path.with_suffix(".idx").read_bytes()
    path.with_suffix(".idx").unlink()
    assert write_index(path).read_bytes() == expected
    with pytest.raises(DataError, match=r"a\.idx: exists already"):
        write_index(path)


def test_an_image_of_zero_length_after_its_label_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [labelled(0, 0, b"x"), labelled(0, 1)])
    with pytest.raises(CorruptImage, match=r"a\.rec record 1 \(offset 36\): the image is empty"):
        RecordIO(path).read(1)
    with pytest.raises(CorruptImage, match=r"a\.rec record 0 \(offset 0\): is not an image"):
        RecordIO(path).read(0)


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf"), 2.0**24])
def test_labels_that_are_no_class_are_refused(tmp_path: Path, label: float) -> None:
    path = write(tmp_path / "a.rec", [labelled(0, 0, b"x"), labelled(label, 1, b"x")])
    with pytest.raises(DataError, match=r"record 1 .*: label .* is no class number; .* 2\^24"):
        RecordIO(path)


def test_labels_with_gaps(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [labelled(label, 0, b"x") for label in (0, 5, 2)])
    with pytest.raises(DataError, match=r"a\.rec: class 1 has no image"):
        RecordIO(path)
    assert RecordIO(path, relabel=True).labels.tolist() == [0, 2, 1]


def test_a_label_that_holds_the_magic_number_is_read(tmp_path: Path) -> None:
    split = Record(np.zeros(1, np.float32), True, b"image", struct.unpack("<I", MAGIC_BYTES)[0]).packed()
    path = write(tmp_path / "a.rec", [split, labelled(1, 1, b"y")])
    found = RecordIO(path)
    assert found.labels.tolist() == [0, 1]
    assert found.encoded(0) == b"image"


def test_a_header_beyond_float32_is_not_believed(tmp_path: Path) -> None:
    contents = [labelled([2.0**24, 2.0**24 + 4], 0), labelled(0, 1, b"x"), labelled(1, 2, b"y"), labelled([1, 2], 3)]
    assert RecordIO(write(tmp_path / "a.rec", contents)).labels.tolist() == [0, 1]


def test_property_must_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [labelled(0, 0, b"x")])
    (tmp_path / "property").write_text("2,112,112")
    with pytest.raises(DataError, match="says 2 classes, but the records have 1"):
        RecordIO(path)
    (tmp_path / "property").write_text("many")
    with pytest.raises(DataError, match="is not 'classes,height,width'"):
        RecordIO(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\n#\xd7\xce", r"is cut off: a record begins at offset 0, the file has 4 bytes"),
        (b"not a record at all", "no record begins at offset 0; the file or its index is damaged"),
        (MAGIC_BYTES + b"\xff\xff\xff\x1f", "is cut off: the record at offset 0 ends at 536870919, the file has 8"),
        (MAGIC_BYTES + b"\x00\x00\x00\x80", "no record begins at offset 0"),
        (MAGIC_BYTES + b"\x00\x00\x00\x40", "offset 0 lies inside a record of several parts"),
        ((MAGIC_BYTES + b"\x00\x00\x00\x20") * 2, "the record at offset 0 breaks off; at 8 another one begins"),
        (MAGIC_BYTES + b"\x00\x00\x00\x20", "is cut off: a record begins at offset 8"),
        (
            MAGIC_BYTES + b"\x00\x00\x00\x20" + (MAGIC_BYTES + b"\x00\x00\x00\x40") * 999,
            "a record begins at offset 8000",
        ),
        (encoded_record(b"ok") + encoded_record(b"abcd")[:-1], "the record at offset 12 ends at 24, the file has 23"),
    ],
)
def test_hostile_files_are_refused_with_their_offset(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.rec").write_bytes(data)
    with pytest.raises(DataError, match=reason):
        RecordFile(tmp_path / "a.rec")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"short", "has 5 bytes, too few for the label of 24 bytes"),
        (struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + b"image", "announces 4294967295 labels, but has only 29 bytes"),
        (labelled([1.0], 0), r"the header record says \[1\], not"),
        (labelled([float("nan"), 2.0], 0), r"the header record says \[nan, 2\]"),
        (labelled([5.0, 2.0], 0), r"the header record says \[5, 2\]"),
        (labelled([0.0, 0.0], 0), r"the header record says \[0, 0\]"),
        (
            labelled([900.0, 1000.0], 0),
            "announces records up to 999, but the last one is 1; the file or its index is cut",
        ),
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        RecordIO(write(tmp_path / "a.rec", [content, labelled(0, 1, b"x")]))


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("0\t0\nx\t4\n", "line 2: 'x.t4' is not 'key offset'"),
        ("0\n", "line 1: '0' is not 'key offset'"),
        ("0\t0\n\n1\t-8\n", "line 3: '1.t-8' is not 'key offset'"),
        ("0\t2\n", r"record 0 should begin at offset 2, where a\.rec \(32 bytes\) cannot have one"),
        ("0\t999999\n", "record 0 should begin at offset 999999"),
        ("0\t0\n0\t0\n", "key 0 occurs twice"),
        ("0\t0\n" + "1\t" + "9" * 19, "line 2"),
    ],
)
def test_hostile_indices_are_refused(tmp_path: Path, index: str, reason: str) -> None:
    path = write(tmp_path / "a.rec", [labelled(0, 0)])
    path.with_suffix(".idx").write_text(index)
    with pytest.raises(DataError, match=reason):
        RecordFile(path)


def test_an_index_may_have_blank_lines_and_other_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.rec", [b"a", b"bc", b"d"])
    path.with_suffix(".idx").write_text("5 12\r\n\n \t\n2\t0 \n\n9\t24")
    for block in (1 << 22, 1):
        monkeypatch.setattr("facelab.data.formats.records.BLOCK", block)
        found = RecordFile(path)
        assert found.keys.tolist() == [2, 5, 9]
        assert [found.content(row) for row in range(3)] == [b"a", b"bc", b"d"]


def test_an_index_that_ends_early_or_leaves_records_out_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [labelled(0, label, b"image") for label in range(5)])
    lines = path.with_suffix(".idx").read_text().splitlines(keepends=True)
    assert len(RecordFile(path)) == 5
    for kept in range(1, 5):
        path.with_suffix(".idx").write_text("".join(lines[:kept]))
        with pytest.raises(DataError, match=r"a\.idx: ends early: its last record ends at byte .* `facelab data index"):
            RecordFile(path)
    for left_out in range(1, 4):
        path.with_suffix(".idx").write_text("".join(lines[:left_out] + lines[left_out + 1 :]))
        offset = lines[left_out].split()[1]
        with pytest.raises(DataError, match=rf"a\.idx: leaves out the record at byte {offset}; remove a\.idx"):
            RecordFile(path)
    path.with_suffix(".idx").write_text("".join(lines[::-1]))
    assert len(RecordFile(path)) == 5


def test_a_cut_file_is_refused_before_training(tmp_path: Path, source: ImageFolder) -> None:
    write_recordio(tmp_path / "a.rec", source, source.encoded, RecordLayout(header=False))
    whole = (tmp_path / "a.rec").read_bytes()
    (tmp_path / "a.rec").write_bytes(whole[:-30])
    with pytest.raises(CorruptImage, match=f"is cut off: the record at offset .* the file has {len(whole) - 30}"):
        RecordIO(tmp_path / "a.rec")


def test_random_damage_never_hangs(tmp_path: Path, source: ImageFolder) -> None:
    write_recordio(tmp_path / "a.rec", source, source.encoded)
    whole = bytearray((tmp_path / "a.rec").read_bytes())
    random = np.random.default_rng(1)
    for trial in range(60):
        damaged = bytearray(whole[: random.integers(1, len(whole))] if trial % 2 else whole)
        for place in random.integers(0, len(damaged), 8):
            damaged[place] = random.integers(0, 256)
        for name in ("a.rec", f"without-index-{trial}.rec"):
            (tmp_path / name).write_bytes(damaged)
            with contextlib.suppress(DataError):  # any other error, or a hang, would be a fault
                found = RecordIO(tmp_path / name)
                for index in range(len(found)):
                    found.encoded(index)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.rec: cannot be opened"):
        RecordIO(tmp_path / "a.rec")
    (tmp_path / "a.rec").touch()
    with pytest.raises(DataError, match="holds no record"):
        RecordIO(tmp_path / "a.rec")
    with pytest.raises(DataError, match="holds no image"):
        RecordIO(write(tmp_path / "b.rec", [labelled([1.0, 1.0], 0)]))


def test_nothing_is_written_over_or_left_half(tmp_path: Path, source: ImageFolder) -> None:
    path = write(tmp_path / "a.rec", [b""])
    with pytest.raises(DataError, match=r"a\.rec: exists already"):
        write_recordio(path, source, source.encoded)

    def broken(index: int) -> bytes:
        if index == 3:
            raise CorruptImage("x.png: is not an image.")
        return source.encoded(index)

    with pytest.raises(CorruptImage, match=r"x\.png: is not an image"):
        write_recordio(tmp_path / "new" / "b.rec", source, broken)
    assert list((tmp_path / "new").iterdir()) == []


def test_too_many_images_for_a_header_are_refused(tmp_path: Path, source: ImageFolder) -> None:
    source.labels = np.zeros(2**24, np.int64)
    with pytest.raises(DataError, match=r"a header record that counts 16777220 cannot be written.*without header"):
        write_recordio(tmp_path / "a.rec", source, source.encoded)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())["files"]


@pytest.fixture
def real(shared_root: Path) -> Path:
    return shared_root / "data" / "recordio"


def real_content(record: dict[str, Any], content: bytes, where: str) -> None:
    """Compare one record with the manifest."""
    if "flag" not in record:
        assert (len(content), hashlib.sha256(content).hexdigest()) == (record["len"], record["sha256"])
        return
    found = unpack(content, where)
    assert len(content) == record["raw_len"]
    assert (found.flag, found.labels.tolist(), found.scalar) == (
        record["flag"],
        record["label"],
        record["scalar_label"],
    )
    assert (found.id, found.id2, len(found.image)) == (record["id"], record["id2"], record["payload_len"])
    assert hashlib.sha256(found.image).hexdigest() == record["payload_sha256"]
    assert found.packed() == content


@pytest.mark.real
def test_real_files_record_by_record(real: Path, tmp_path: Path) -> None:
    for name, described in manifest(real).items():
        without = tmp_path / name
        without.write_bytes((real / name).read_bytes())
        for records in (RecordFile(real / name), RecordFile(without)):
            assert records.keys.tolist() == [record["idx"] for record in described["records"]]
            assert records.offsets.tolist() == [record["offset"] for record in described["records"]]
            for row, record in enumerate(described["records"]):
                real_content(record, records.content(row), records.where(row))


@pytest.mark.real
def test_real_images_and_labels(real: Path) -> None:
    for name, described in manifest(real).items():
        images = [record for record in described["records"] if "rgb_sha256" in record]
        if not images:
            continue
        source = RecordIO(real / name)
        assert source.labels.tolist() == [record["label"][0] for record in images]
        for index, record in enumerate(images):
            pixels = source.read(index)
            assert list(pixels.shape) == record["shape"]
            assert pixels.mean() == pytest.approx(record["rgb_mean"], abs=0.5)  # JPEG decoders differ in the last bit


@pytest.mark.real
def test_our_writer_gives_the_real_files(real: Path, tmp_path: Path) -> None:
    for name in manifest(real):
        records = RecordFile(real / name)
        with record_writer(tmp_path / name) as writer:
            for row, key in enumerate(records.keys.tolist()):
                writer.write(key, records.content(row))
        assert (tmp_path / name).read_bytes() == (real / name).read_bytes()
        index = Path(name).with_suffix(".idx")
        assert (tmp_path / index).read_bytes() == (real / index).read_bytes()


@pytest.mark.real
@pytest.mark.parametrize(("name", "array"), [("train.rec", False), ("train_arraylabel.rec", True)])
def test_a_real_training_set_is_rewritten_to_the_byte(
    real: Path, tmp_path: Path, name: str, array: bool, picture: Callable[..., Any]
) -> None:
    source = RecordIO(real / name)
    write_recordio(tmp_path / name, source, source.encoded, RecordLayout(array_labels=array))
    assert (tmp_path / name).read_bytes() == (real / name).read_bytes()


def test_a_fingerprint_sees_labels(tmp_path: Path, source: ImageFolder) -> None:
    """Two files that differ in one label: the records lie at the same places."""
    found = []
    for name, labels in (("a", [0, 1, 1, 2, 2, 2]), ("b", [0, 1, 2, 2, 2, 2])):
        contents = [labelled(label, row, source.encoded(row)) for row, label in enumerate(labels)]
        found.append(RecordIO(write(tmp_path / f"{name}.rec", contents)))
    np.testing.assert_array_equal(found[0].records.offsets, found[1].records.offsets)
    assert found[0].fingerprint() != found[1].fingerprint()
