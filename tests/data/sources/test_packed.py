"""Packed images: equal to their source, refusals of files that do not fit, nothing left half-written."""

import errno
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from facelab.data.base import SOURCES, Source
from facelab.data.formats import writing
from facelab.data.formats.conversion import encoder, write_image_folder
from facelab.data.formats.record_writer import write_recordio
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.packed import Packed, write_packed
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.resized import Resized
from facelab.errors import CorruptImage, DataError
from facelab.quality.card import ScorerCard
from facelab.quality.table import ScoreTable, write_scores


@pytest.fixture
def packed(faces: Path, tmp_path: Path) -> Path:
    write_packed(tmp_path / "packed", ImageFolder(faces))
    return tmp_path / "packed"


def test_packed_images_are_those_of_the_source(packed: Path, faces: Path) -> None:
    source, back = ImageFolder(faces), SOURCES.build("Packed", {"path": str(packed)})
    assert (back.labels.tolist(), back.num_classes) == (source.labels.tolist(), 3)
    for index in range(6):
        np.testing.assert_array_equal(back.read(index), source.read(index))
    assert back.read(0).flags.writeable
    assert back.location(4) == f"{packed}/images.u8 image 4"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(back)).read(5), source.read(5))
    with pytest.raises(IndexError):
        back.read(6)


def test_names_of_the_source_are_kept(packed: Path, faces: Path, tmp_path: Path) -> None:
    source, back = ImageFolder(faces), Packed(packed)
    assert [back.name(row) for row in range(6)] == [source.name(row) for row in range(6)]
    assert pickle.loads(pickle.dumps(back)).name(-1) == "p2/2.png"
    write_packed(tmp_path / "again", Resized(back, 4, 4))
    assert Packed(tmp_path / "again").name(5) == "p2/2.png"


def test_score_tables_and_lists_of_the_source_fit_the_pack(packed: Path, faces: Path, tmp_path: Path) -> None:
    scorer = ScorerCard(name="Sharpness")
    write_scores(tmp_path / "scores.csv", ImageFolder(faces), np.arange(6, dtype=np.float32), scorer)
    assert ScoreTable(tmp_path / "scores.csv").of(Packed(packed)).values.tolist() == [0, 1, 2, 3, 4, 5]
    write_image_folder(tmp_path / "folder", Packed(packed))
    found = sorted(path.relative_to(tmp_path / "folder").as_posix() for path in (tmp_path / "folder").glob("*/*"))
    assert found == ["p0/0.jpg", "p1/0.jpg", "p1/1.jpg", "p2/0.jpg", "p2/1.jpg", "p2/2.jpg"]


def test_packs_without_names_and_with_those_of_other_images(packed: Path) -> None:
    (packed / "names.u8").write_bytes(b"a\0b\0")
    with pytest.raises(DataError, match=r"names\.u8: has 2 names for 6 images; remove it to do without names"):
        Packed(packed)
    (packed / "names.u8").write_bytes(b"a\0b\0c\0d\0e\0f")
    with pytest.raises(DataError, match="has 5 names for 6 images"):
        Packed(packed)
    (packed / "names.u8").unlink()
    assert Packed(packed).name(4) == "image 4"


def test_many_images_are_those_read_one_by_one(packed: Path) -> None:
    source = Packed(packed)
    chosen = np.array([4, 0, 5, 0])
    many = source.read_many(chosen)
    assert (many.dtype, many.flags.writeable, many.flags.c_contiguous) == (np.uint8, True, True)
    np.testing.assert_array_equal(many, [source.read(row) for row in chosen.tolist()])
    many.fill(0)
    assert source.read(4).any()
    with pytest.raises(IndexError):
        source.read_many(np.array([0, 6]))


def test_progress_threads_and_fingerprint(faces: Path, tmp_path: Path, packed: Path) -> None:
    done: list[int] = []
    again = write_packed(tmp_path / "again", ImageFolder(faces), done.append, workers=3)
    assert done == [6]
    assert again.fingerprint() == Packed(packed).fingerprint()
    small = write_packed(tmp_path / "small", Resized(ImageFolder(faces), 4, 4))
    assert small.read(0).shape == (4, 4, 3)
    assert small.fingerprint() != again.fingerprint()


def test_sizes_must_agree(faces: Path, tmp_path: Path) -> None:
    source = Resized(ImageFolder(faces), 4, 4)
    read = source.read
    source.read = lambda index: read(index)[: 4 - (index == 5)]  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"p2/2\.png: is 3x4, but the first image is 4x4; give a size"):
        write_packed(tmp_path / "packed", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces"]


def test_nothing_is_left_after_a_corrupt_image(faces: Path, tmp_path: Path) -> None:
    (faces / "p2" / "1.png").write_bytes(b"x")
    with pytest.raises(CorruptImage, match=r"p2/1\.png"):
        write_packed(tmp_path / "packed", ImageFolder(faces))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces"]


def test_a_full_disk_is_said_and_leaves_nothing(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="packed: the disk is full; nothing was written"):
        write_packed(tmp_path / "packed", ImageFolder(faces))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces"]


def test_too_little_space_is_said_before_the_work(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: writing.shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DataError, match=r"needs 2,208 bytes, but only 1 are free"):
        write_packed(tmp_path / "packed", ImageFolder(faces))


def test_an_existing_target_is_kept(packed: Path, faces: Path) -> None:
    with pytest.raises(DataError, match="packed: exists already"):
        write_packed(packed, ImageFolder(faces))
    assert len(Packed(packed)) == 6


@pytest.mark.parametrize("name", ["meta.json", "images.u8", "labels.npy"])
def test_a_file_that_is_missing_is_named(name: str, packed: Path) -> None:
    (packed / name).unlink()
    with pytest.raises(DataError, match=rf"{re.escape(str(packed / name))}: .*([Nn]o such file|does not exist)"):
        Packed(packed)


def test_files_that_do_not_fit_are_refused(packed: Path) -> None:
    pixels = (packed / "images.u8").read_bytes()
    (packed / "images.u8").write_bytes(pixels[:-1])
    with pytest.raises(DataError, match=r"has 2159 bytes, but 6 images of 12x10 take 2160; the file is cut off"):
        Packed(packed)
    (packed / "images.u8").write_bytes(pixels)
    for labels in (np.zeros(5, np.int64), np.zeros(6, np.float32), np.full(6, -1)):
        np.save(packed / "labels.npy", labels)
        with pytest.raises(DataError, match=r"labels\.npy: must hold 6 whole numbers"):
            Packed(packed)
    np.save(packed / "labels.npy", np.array([0, 0, 0, 2, 2, 2]))
    with pytest.raises(DataError, match="class 1 has no image"):
        Packed(packed)
    np.save(packed / "labels.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"labels\.npy: is no array of labels"):
        Packed(packed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "other"}, "is not of the format 'facelab packed images 1'"),
        ({"count": "many"}, r"'count': .*valid integer"),
        ({"extra": 1}, r"'extra': .*not permitted"),
        ({"width": -10}, "says 6 images of 12x-10 in RGB order"),
        ({"colour": "BGR"}, "in BGR order"),
    ],
)
def test_meta_is_checked(packed: Path, change: dict[str, object], reason: str) -> None:
    meta = json.loads((packed / "meta.json").read_text())
    (packed / "meta.json").write_text(json.dumps(meta | change))
    with pytest.raises(DataError, match=reason):
        Packed(packed)


@pytest.mark.parametrize("name", ["images.u8", "a.rec"])
def test_another_process_refuses_a_file_of_another_size(name: str, packed: Path, faces: Path) -> None:
    write_recordio(packed / "a.rec", ImageFolder(faces), encoder(ImageFolder(faces)))
    source: Source = Packed(packed) if name == "images.u8" else RecordIO(packed / "a.rec")
    sent, size = pickle.dumps(source), (packed / name).stat().st_size
    assert np.array_equal(pickle.loads(sent).read(1), source.read(1))
    with (packed / name).open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=rf"{name}: has {size + 4} bytes, but had {size} when it was first opened"):
        pickle.loads(sent)


def test_a_folder_of_something_else_is_refused(faces: Path, packed: Path) -> None:
    with pytest.raises(DataError, match="it should be the description of packed images"):
        Packed(faces)
    (packed / "meta.json").write_text("{")
    with pytest.raises(DataError, match="is not the description of packed images in JSON"):
        Packed(packed)
