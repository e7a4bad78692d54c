"""Choosing images by person, opening whatever a user names, inspecting and converting."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelab.data.formats.conversion import encoder, write_image_folder
from facelab.data.formats.inspection import class_counts, inspect_images
from facelab.data.formats.list_file import ListFile
from facelab.data.formats.lst_file import LstFile
from facelab.data.formats.record_writer import write_recordio
from facelab.data.sources.concat import Concat
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.image_list import ImageList
from facelab.data.sources.open_source import open_source
from facelab.data.sources.packed import Packed, write_packed
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.selection import (
    people_of_test_list,
    read_entries,
    rows_of_large_classes,
    rows_of_list,
    rows_of_people,
    rows_shallow,
    rows_without,
    write_list,
)
from facelab.errors import ConfigError, DataError


def text_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_folder_becomes_a_list_that_reads_back(faces: Path, tmp_path: Path) -> None:
    entries = read_entries(faces)
    assert write_list(tmp_path / "train.txt", entries, np.arange(6)) == 3
    assert (tmp_path / "train.txt").read_text().splitlines()[:2] == ["p0/0.png 0", "p1/0.png 1"]
    back = ImageList(faces, tmp_path / "train.txt")
    assert back.labels.tolist() == entries.labels.tolist()
    with pytest.raises(DataError, match="exists already"):
        write_list(tmp_path / "train.txt", entries, np.arange(6))


def test_names_that_break_a_list_are_refused(faces: Path, tmp_path: Path) -> None:
    (faces / "p0" / "0.png").rename(faces / "p0" / "a\nb.png")
    with pytest.raises(DataError, match=r"'p0/a\\nb\.png' cannot stand in a list"):
        write_list(tmp_path / "train.txt", read_entries(faces), np.arange(6))
    assert not (tmp_path / "train.txt").exists()


def test_people_of_an_id_list(faces: Path, tmp_path: Path) -> None:
    listed = text_file(tmp_path / "train.txt", "x/p2/0.png 5\nx/p0/0.png 3\nx/p2/1.png 5\nx/p1/0.png 9\n")
    entries = read_entries(listed)
    rows = rows_of_people(entries, text_file(tmp_path / "ids.txt", "p1\np2\n"))
    assert rows.tolist() == [0, 2, 3]
    write_list(tmp_path / "new.txt", entries, rows)
    assert (tmp_path / "new.txt").read_text() == "x/p2/0.png 0\nx/p2/1.png 0\nx/p1/0.png 1\n"
    with pytest.raises(DataError, match=r"ids\.txt line 1: there is no person 'p7'"):
        rows_of_people(entries, text_file(tmp_path / "ids.txt", "p7\n"))
    flat = read_entries(text_file(tmp_path / "flat.txt", "a.png 0\n"))
    with pytest.raises(DataError, match=r"'a\.png' lies in no folder"):
        rows_of_people(flat, tmp_path / "ids.txt")


def test_classes_with_few_images_are_left_out(tmp_path: Path) -> None:
    entries = read_entries(text_file(tmp_path / "train.txt", "b/0.png 5\na/0.png 3\nb/1.png 5\nc/0.png 9\nc/1.png 9\n"))
    assert rows_of_large_classes(entries, 1).tolist() == [0, 1, 2, 3, 4]
    assert rows_of_large_classes(entries, 2).tolist() == [0, 2, 3, 4]
    with pytest.raises(DataError, match=r"none of the 3 classes has 3 images"):
        rows_of_large_classes(entries, 3)
    with pytest.raises(ConfigError, match="min-images is 0"):
        rows_of_large_classes(entries, 0)


@pytest.mark.parametrize(
    "text",
    [
        "10\t300\nAnn_Lee\t1\t4\nAnn_Lee\t1\tBob-B\t2\n",
        "10 300\nAnn_Lee 1 4\nann_lee 1 Bob_B 2\n",
        "Ann Lee\n\nbob b\n",
        "Ann_Lee/Ann_Lee_0001.jpg x/Bob_B/1.jpg 1\n",
        "Ann_Lee\t4\nBob_B\t1\n",
        "Ann_Lee/1.jpg,x/Bob_B/1.jpg,1\n",
        '"Ann_Lee/1, 2.jpg",x/Bob_B/1.jpg,1\n',
        "\ufeffAnn_Lee\\1.jpg x\\Bob_B\\1.jpg 1\r\n",
    ],
)
def test_people_of_test_lists(tmp_path: Path, text: str) -> None:
    assert people_of_test_list(text_file(tmp_path / "pairs.txt", text)) == {"ann_lee", "bob_b"}


def test_a_test_list_of_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names nobody"):
        people_of_test_list(text_file(tmp_path / "pairs.txt", "10 300\n"))


def test_test_people_are_excluded(tmp_path: Path) -> None:
    entries = read_entries(text_file(tmp_path / "train.txt", "ANN-lee/1.png 0\nCleo/1.png 1\n"))
    rows, met = rows_without(entries, frozenset({"ann_lee", "bob_b"}))
    assert (rows.tolist(), met) == ([1], {"ann_lee"})
    with pytest.raises(DataError, match="nobody is left"):
        rows_without(entries, frozenset({"ann_lee", "cleo"}))


def test_names_in_two_unicode_forms_are_one_person(tmp_path: Path) -> None:
    tested = people_of_test_list(text_file(tmp_path / "pairs.txt", "JOS\u00c9/1.jpg Ann/1.jpg 0\n"))
    entries = read_entries(text_file(tmp_path / "train.txt", "Jose\u0301/1.png 0\nCleo/1.png 1\n"))
    rows, met = rows_without(entries, tested)
    assert (rows.tolist(), len(met)) == ([1], 1)
    ids = text_file(tmp_path / "ids.txt", "Jos\u00e9\n")
    assert rows_of_people(entries, ids).tolist() == [0]


def test_shallow_takes_as_many_of_each(tmp_path: Path) -> None:
    lines = [f"p{label}/{number}.png {label}\n" for number in range(5) for label in (7, 3)]
    entries = read_entries(text_file(tmp_path / "train.txt", "".join(lines) + "p9/0.png 9\n"))
    rows = rows_shallow(entries, 2, seed=0)
    assert sorted(entries.labels[rows].tolist()) == [3, 3, 7, 7]
    assert rows.tolist() == rows_shallow(entries, 2, seed=0).tolist()
    assert any(rows.tolist() != rows_shallow(entries, 2, seed=seed).tolist() for seed in (1, 2, 3))
    assert len(rows_shallow(entries, 1, seed=0)) == 3
    with pytest.raises(ConfigError, match="per-id is 0"):
        rows_shallow(entries, 0, seed=0)
    with pytest.raises(DataError, match="none of the 3 classes has 6 images"):
        rows_shallow(entries, 6, seed=0)


def test_every_kind_of_source_is_recognised(faces: Path, tmp_path: Path) -> None:
    folder = ImageFolder(faces)
    write_list(tmp_path / "train.txt", read_entries(faces), np.arange(6))
    write_packed(tmp_path / "packed", folder)
    write_recordio(tmp_path / "rec" / "train.rec", folder, folder.encoded)
    with tarfile.open(tmp_path / "faces.tar", "w") as tar:
        tar.add(faces, ".")
    given: list[tuple[str | Path, Path | None, type]] = [
        (faces, None, ImageFolder),
        (tmp_path / "faces.tar", None, ImageFolder),
        (tmp_path / "train.txt", faces, ImageList),
        (tmp_path / "packed", None, Packed),
        (tmp_path / "rec", None, RecordIO),
        (tmp_path / "rec" / "train.rec", None, RecordIO),
        (f"{{ImageFolder: {{root: {faces}, min_images: 2}}}}", None, ImageFolder),
        (f"{{Concat: {{sources: [{{ImageFolder: {{root: {faces}}}}}]}}}}", None, Concat),
    ]
    for what, root, kind in given:
        source = open_source(what, root)
        assert type(source) is kind
        assert source.read(len(source) - 1).shape == (12, 10, 3)


@pytest.mark.parametrize(
    "spec", ["{ImageFolder: {root: %s}}", "  {ImageFolder: {root: %s}}\n", "\n{ImageFolder: {root: '%s'}} "]
)
def test_blanks_around_the_words_of_a_source_mean_nothing(spec: str, faces: Path) -> None:
    assert open_source(spec % faces).fingerprint() == ImageFolder(faces).fingerprint()


def test_what_is_no_source_is_refused(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere: there is no such file or folder; a source is a folder or an archive"
    ):
        open_source(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="the source is empty; a source is a folder"):
        open_source("")
    with pytest.raises(ConfigError, match="no list of images; a root is only needed for one"):
        open_source(faces, faces)
    with pytest.raises(ConfigError, match="the source '{ImageFolder: \\[}', line 1: "):
        open_source("{ImageFolder: [}")
    (tmp_path / "faces.tar.xz").touch()
    with pytest.raises(DataError, match=r"faces\.tar\.xz: of archives, \.tar, \.zip, .* are read; unpack it"):
        open_source(tmp_path / "faces.tar.xz")
    (tmp_path / "lfw.bin").touch()
    with pytest.raises(
        DataError, match=r"lfw\.bin: a \.bin file is a verification pack, to test with \(BinPack\.path="
    ):
        open_source(tmp_path / "lfw.bin")
    with pytest.raises(DataError, match=r"0\.png: is not a text file, and so no list of images"):
        open_source(text_file(tmp_path / "0.png", "a\0b\n"))
    with pytest.raises(ConfigError, match="Did you mean 'ImageFolder'"):
        open_source("{ImageFoldr: {root: x}}")


def test_lst_files_are_lists(faces: Path, tmp_path: Path) -> None:
    path = text_file(tmp_path / "a.lst", "1\t0.000000\tp0/0.png\n\n2\t1\t9.5\tp1/0.png\r\n")
    source = ImageList(faces, path)
    assert source.labels.tolist() == [0, 1]
    assert source.location(1) == f"{path} line 3: {faces}/p1/0.png"
    assert source.fingerprint() == ImageList(faces, path).fingerprint()
    assert list(LstFile(path)[1:]) == [b"p1/0.png"]
    for line in ("1\tx\ta.png", "1\t0", "1\t0.5\ta.png", "1\t-1\ta.png", "1\tinf\ta.png", "1\tnan\ta.png"):
        with pytest.raises(DataError, match=r"b\.lst line 2: .* is not 'key<tab>label<tab>path'"):
            LstFile(text_file(tmp_path / "b.lst", f"0\t0\tp0/0.png\n{line}\n"))
    with pytest.raises(DataError, match="names no image"):
        LstFile(text_file(tmp_path / "b.lst", "\n"))
    with pytest.raises(DataError, match="cannot be read"):
        LstFile(tmp_path / "absent.lst")


def test_inspection_counts_sizes_faults_and_duplicates(
    faces: Path, picture: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]
) -> None:
    (faces / "p0" / "1.png").write_bytes(png(picture(0)))  # as p0/0
    (faces / "p1" / "2.png").write_bytes(png(picture(0)))  # as p0/0, another person
    (faces / "p2" / "2.png").write_bytes(png(picture(9, 4, 5)))
    (faces / "p2" / "3.png").write_bytes(b"x")
    source = ImageFolder(faces)
    done: list[int] = []
    found = inspect_images(source, range(len(source)), workers=3, progress=done.append)
    assert done == [9]
    assert dict(found.sizes) == {(12, 10): 7, (4, 5): 1}
    assert (found.read, found.duplicates, found.conflicts, found.corrupt.count) == (9, 2, 1, 1)
    assert "p2/3.png: is not an image" in found.corrupt.entries[0].reason
    counts = class_counts(source)
    assert (counts.smallest, counts.median, counts.largest, counts.single) == (2, 3, 4, 0)


def test_records_become_a_folder_and_records_again(faces: Path, tmp_path: Path) -> None:
    folder = ImageFolder(faces)
    write_recordio(tmp_path / "a.rec", folder, encoder(folder))
    write_image_folder(tmp_path / "back", RecordIO(tmp_path / "a.rec"))
    back = ImageFolder(tmp_path / "back")
    assert back.labels.tolist() == folder.labels.tolist()
    assert [back.encoded(index) for index in range(6)] == [folder.encoded(index) for index in range(6)]
    assert list(ListFile(tmp_path / "back" / "train.txt")) == [name.encode() for name in map(back.name, range(6))]
    assert list(back.names) == list(folder.names)  # the .lst beside the records knows them: lists still fit
    (tmp_path / "a.lst").unlink()
    write_image_folder(tmp_path / "numbers", RecordIO(tmp_path / "a.rec"))
    assert ImageFolder(tmp_path / "numbers").name(5) == "2/00000005.png"


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (["p/a.bmp", "q/b.png"], ["p/a.png", "q/b.png"]),
        (["/data/ms1m/p/a.png", "/data/ms1m/q/b.png"], ["p/a.png", "q/b.png"]),
        (["p/a.png", "p/a.jpg"], ["0/00000000.png", "1/00000001.png"]),  # both would be p/a.png
        (["../a.png", "../../b.png"], ["0/00000000.png", "1/00000001.png"]),
    ],
)
def test_exported_files_keep_usable_names_only(
    names: list[str], written: list[str], faces: Path, tmp_path: Path
) -> None:
    text_file(tmp_path / "two.txt", "p0/0.png 0\np1/0.png 1\n")
    source = ImageList(faces, tmp_path / "two.txt")
    write_recordio(tmp_path / "a.rec", source, source.encoded)
    text_file(tmp_path / "a.lst", "".join(f"{row}\t{row}\t{name}\n" for row, name in enumerate(names)))
    write_image_folder(tmp_path / "back", RecordIO(tmp_path / "a.rec"))
    assert [name.decode() for name in ListFile(tmp_path / "back" / "train.txt")] == written


def test_other_formats_are_encoded_as_jpeg(faces: Path) -> None:
    smooth = np.full((12, 10, 3), (200, 100, 50), np.uint8)
    (faces / "p0" / "0.png").unlink()
    (faces / "p0" / "0.bmp").write_bytes(cv2.imencode(".bmp", smooth[..., ::-1])[1].tobytes())
    data = encoder(ImageFolder(faces), 100)(0)
    assert data.startswith(b"\xff\xd8")
    np.testing.assert_allclose(cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1].astype(int), smooth, atol=3)


def test_a_list_keeps_its_images_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a/1.jpg 0\na/2.jpg 0\nb/1.jpg 1\n./c/1.jpg 2\nb/1.jpg 2\n")
    entries = read_entries(tmp_path / "train.txt")
    (tmp_path / "keep.txt").write_text("c/1.jpg 9\na/2.jpg 7\nb/1.jpg 2\n")
    assert rows_of_list(entries, tmp_path / "keep.txt").tolist() == [1, 3, 4]


def test_a_list_of_another_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a/1.jpg 0\n")
    (tmp_path / "keep.txt").write_text("a/1.jpg 0\n\nb/1.jpg 1\n")
    with pytest.raises(DataError, match="keep.txt line 3: 'b/1.jpg' is not in .*train.txt"):
        rows_of_list(read_entries(tmp_path / "train.txt"), tmp_path / "keep.txt")
