"""The samples of a tar shard: what is sound is found, what is not is refused by name, and an index is not believed."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.data.shards.ranged_file import Ahead, LocalFile
from facelab.data.shards.tar_index import Fields, TarIndex, index_tar, read_index
from facelab.errors import DataError

Write = Callable[..., Path]
TWO = {"a/1.jpg": b"one", "a/1.cls": b"4", "a/2.cls": b" 7\n", "a/2.jpg": b"two!"}


def index(path: Path, **fields: str) -> TarIndex:
    return index_tar(LocalFile(path), Fields(**fields))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_samples_are_found_with_their_labels(tmp_path: Path, tar_of: Write, form: int) -> None:
    long = f"{'folder' * 12}/{'b' * 60}"
    path = tar_of(
        tmp_path / "a.tar", {"./z.png": b"zero", "z.cls": b"0", **TWO, f"{long}.png": b"3", f"{long}.cls": b"1"}, form
    )
    found, file = index(path), LocalFile(path)
    assert list(found.names) == [b"z.png", b"a/1.jpg", b"a/2.jpg", f"{long}.png".encode()]
    assert found.labels.tolist() == [0, 4, 7, 1]
    assert [found.content(row, file) for row in range(4)] == [b"zero", b"one", b"two!", b"3"]
    again = read_index(found.packed(), file)
    assert [again.content(row, file) for row in range(4)] == [b"zero", b"one", b"two!", b"3"]
    assert (list(again.names), again.labels.tolist()) == (list(found.names), found.labels.tolist())


def test_names_of_other_letters_are_read(tmp_path: Path, tar_of: Write) -> None:
    path = tar_of(tmp_path / "a.tar", {"Zoë.jpg": b"zoe", "Zoë.cls": b"0", "\udcff.jpg": b"odd", "\udcff.cls": b"1"})
    found = index(path)
    assert [found.content(row, LocalFile(path)) for row in range(2)] == [b"zoe", b"odd"]


def test_labels_in_json_and_images_by_ending(tmp_path: Path, tar_of: Write) -> None:
    files = {"1.jpg": b"small", "1.full.jpg": b"large", "1.json": b'{"label": 3, "id": 5}', "1.txt": b"smile"}
    path = tar_of(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match="the sample '1' has several images; say which one with image: full.jpg"):
        index(path)
    assert index(path, image="full.jpg").labels.tolist() == [3]
    found = index(path, image="jpg", label="json:id")
    assert (found.labels.tolist(), found.content(0, LocalFile(path))) == ([5], b"small")
    both = tar_of(tmp_path / "b.tar", {"1.json": b'{"label": 3}', "1.jpg": b"x", "1.cls": b"9"})
    assert index(both).labels.tolist() == [9]


def test_what_lies_beside_the_samples_is_counted(tmp_path: Path, tar_of: Write) -> None:
    path = tar_of(tmp_path / "a.tar", {"README.md": b"x", **TWO, "../out.jpg": b"x", "/etc/out.cls": b"1"})
    found = index(path)
    assert len(found.names) == 2
    assert found.left_out == (
        f"{path}: 1 left out, files beside the samples (first: 'README').",
        f"{path}: 2 left out, a name that leads out of the archive (first: '../out.jpg').",
    )


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            [("1.jpg", b"x"), ("2.jpg", b"x"), ("2.cls", b"1")],
            "'1.jpg' has no label: no '.cls' or '.json' with 'label'",
        ),
        ([("1.jpg", b"x"), ("1.json", b'{"id": 3}')], "'1.jpg' has no label"),
        ([("1.jpg", b"x"), ("1.json", b"[1]")], "'1.jpg' has no label"),
        ([("1.cls", b"1"), ("2.jpg", b"x"), ("2.cls", b"1")], "the sample '1' has a label, but no image"),
        ([("1.jpg", b"x"), ("1.jpg", b"y"), ("1.cls", b"1")], "the file '1.jpg' occurs twice"),
        ([("1.jpg", b"x"), ("1.cls", b"1"), ("2.jpg", b"x"), ("2.cls", b"1"), ("1.jpg", b"y")], "'1' occurs twice"),
        ([("1.jpg", b"x"), ("1.cls", b"")], "1.cls: the label is b'', but must be a whole number"),
        ([("1.jpg", b"x"), ("1.cls", b"ann")], "the label is b'ann'"),
        ([("1.jpg", b"x"), ("1.cls", b"-1")], "the label is b'-1'"),
        ([("1.jpg", b"x"), ("1.cls", b"1.0")], "the label is b'1.0'"),
        ([("1.jpg", b"x"), ("1.cls", b"9" * 19)], "the label is b'9999"),
        ([("1.jpg", b"x"), ("1.cls", b"1" * (2 << 20))], "has 2,097,152 bytes, which is no label"),
        ([("1.jpg", b"x"), ("1.json", b'{"label": true}')], "'label' is 'True', but must be a whole number"),
        ([("1.jpg", b"x"), ("1.json", b'{"label": 1.5}')], "'label' is '1.5'"),
        ([("1.jpg", b"x"), ("1.json", b'{"label": "3"}')], "'label' is '3'"),
        ([("1.jpg", b"x"), ("1.json", b'{"label": ')], "1.json: is not the description of a sample"),
        ([("1.jpg", b"x"), ("1.json", b"[" * 100000)], "1.json: is not the description of a sample"),
        ([("1.txt", b"x")], "holds no sample"),
    ],
)
def test_samples_that_are_none_are_refused_by_name(
    tmp_path: Path, tar_of: Write, files: list[tuple[str, bytes]], reason: str
) -> None:
    with pytest.raises(DataError) as caught:
        index(tar_of(tmp_path / "a.tar", files))
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "a.tar"))


def test_a_shard_that_is_cut_or_damaged_is_refused_with_its_place(tmp_path: Path, tar_of: Write) -> None:
    path = tar_of(tmp_path / "a.tar", TWO)
    sound = path.read_bytes()
    for length in range(0, len(sound), 300):
        path.write_bytes(sound[:length])
        if length < 9 * 512:  # later on, zeros alone are missing
            with pytest.raises(DataError, match=r"a\.tar: "):
                index(path)
    path.write_bytes(sound[:1100] + b"?" + sound[1101:])
    with pytest.raises(DataError, match="is damaged: at byte 1024 there is no sound header"):
        index(path)


def test_an_announced_size_is_not_believed(tmp_path: Path, tar_of: Write) -> None:
    path = tar_of(tmp_path / "a.tar", {})
    member = tarfile.TarInfo("1.jpg")
    member.size = 1 << 60
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="is cut off: '1.jpg' should end at byte 1152921504606847488"):
        index(path)


def test_a_shard_that_changed_is_noticed(tmp_path: Path, tar_of: Write) -> None:
    path = tar_of(tmp_path / "a.tar", TWO)
    found, opened = index(path), LocalFile(path)
    swapped = {"a/2.jpg": b"one", "a/2.cls": b"4", "a/1.cls": b" 7\n", "a/1.jpg": b"two!"}
    tar_of(path, swapped)
    with pytest.raises(DataError, match="has changed since it was opened"):
        opened.read(0, 1)
    with pytest.raises(DataError, match=r"has changed since it was indexed: 'a/1\.jpg' does not begin at byte 512\."):
        found.content(0, LocalFile(path))
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match="has changed since it was indexed"):
        found.content(0, LocalFile(path))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("places", [512, 1 << 62]),
        ("places", [0, 4096]),
        ("places", [4096, 512]),
        ("sizes", [1 << 62, 4]),
        ("sizes", [-5, 4]),
        ("sizes", [4]),
        ("labels", [0, -1]),
        ("labels", [0.0, 1.0]),
        ("ends", [7, 10**15]),
        ("ends", [14, 7]),
        ("ends", [0, 14]),
        ("format", "facelab tar index 9"),
        ("left_out", None),
        ("places", [[512, 4096]]),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, tar_of: Write, column: str, value: Any) -> None:
    path = tar_of(tmp_path / "a.tar", TWO)
    arrays: dict[str, Any] = dict(np.load(_saved(tmp_path, index(path))))
    arrays[column] = value
    if value is None:
        del arrays[column]
    np.savez(tmp_path / "lies.npz", **arrays)
    with pytest.raises(ValueError, match="it |its "):
        read_index((tmp_path / "lies.npz").read_bytes(), LocalFile(path))


def test_an_index_that_is_damaged_is_refused(tmp_path: Path, tar_of: Write) -> None:
    path = tar_of(tmp_path / "a.tar", TWO)
    sound = _saved(tmp_path, index(path)).read_bytes()
    for content in (b"", b"zip", sound[:-30], sound[: len(sound) // 2], b"x" * len(sound)):
        with pytest.raises(ValueError):
            read_index(content, LocalFile(path))


def test_an_index_that_unpacks_to_more_than_its_shard_is_refused(tmp_path: Path, tar_of: Write) -> None:
    path = tar_of(tmp_path / "a.tar", TWO)
    arrays: dict[str, Any] = dict(np.load(_saved(tmp_path, index(path))))
    np.savez_compressed(tmp_path / "bomb.npz", **arrays, more=np.zeros(1 << 21, np.uint8))
    with pytest.raises(
        ValueError, match=r"it unpacks to 2,0\d\d,\d+ bytes, more than the 1,0\d\d,\d+ that are allowed"
    ):
        read_index((tmp_path / "bomb.npz").read_bytes(), LocalFile(path))


def test_small_reads_in_order_are_one_large_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    file = LocalFile(tmp_path / "a")
    reads: list[tuple[int, int]] = []
    actual = file.read
    file.read = lambda offset, size: reads.append((offset, size)) or actual(offset, size)  # type: ignore[method-assign]
    ahead = Ahead(file, block=40)
    places = (0, 20, 37, 38, 90, 97)
    assert [ahead.read(at, 3) for at in places] == [bytes([at, at + 1, at + 2]) for at in places]
    assert reads == [(0, 40), (38, 40), (90, 10)]
    assert ahead.read(98, 5) == bytes([98, 99])


def _saved(folder: Path, index: TarIndex) -> Path:
    (folder / "index.npz").write_bytes(index.packed())
    return folder / "index.npz"
