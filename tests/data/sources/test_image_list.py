"""FaceX-Zoo lists: parsing at scale, refusals with line numbers, labels without gaps."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facelab.data.base import SOURCES
from facelab.data.formats import list_file
from facelab.data.formats.labels import checked_labels, first_missing
from facelab.data.formats.list_file import ListFile
from facelab.data.sources.image_list import ImageList
from facelab.errors import CorruptImage, DataError

LINES = "p0/0.png 0\np1/0.png 1\np2/2.png 2\np1/1.png 1\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "train.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_images_and_labels_follow_the_list(faces: Path, picture: Callable[..., np.ndarray]) -> None:
    source = SOURCES.build("ImageList", {"root": str(faces), "list_file": str(written(faces, LINES))})
    assert len(source) == 4
    assert source.num_classes == 3
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 1, 2, 1]
    for index, seed in enumerate((0, 10, 22, 11)):
        np.testing.assert_array_equal(source.read(index), picture(seed))
    assert source.location(2) == f"{faces}/train.txt line 3: {faces}/p2/2.png"


@pytest.mark.parametrize(
    "text",
    [
        "a b/c d.png 0\n\n  \ne.png 12\n",
        "\ufeffa b/c d.png 0\r\ne.png\t 12 \r\n\r\n",
        "\n\n  a b/c d.png   0\ne.png 12",
        "a b/c d.png 000\ne.png 0000000012\n\n\n",
        "a b/c d.png,0\ne.png , 12\n",
        '"a b/c d.png",0\n"e.png";12\n',
        '\ufeff"a b/c d.png" 0\r\ne.png 12\r\n',
        "a b\\c d.png 0\ne.png 12\n",
    ],
)
def test_spaces_blank_lines_and_line_ends(tmp_path: Path, text: str) -> None:
    listed = ListFile(written(tmp_path, text))
    assert list(listed) == [b"a b/c d.png", b"e.png"]
    assert listed[:1] == [b"a b/c d.png"]
    assert listed.labels.tolist() == [0, 12]
    raw = (tmp_path / "train.txt").read_bytes().split(b"\n")
    assert [b"e.png" in raw[listed.line(1) - 1], b"c d" in raw[listed.line(0) - 1]] == [True, True]


@pytest.mark.parametrize(
    "line", ["a.png", "7", "a.png x", "a.png -1", "a.png 1.5", "a.png7", "a.png " + "1" * 19, "a.png 1 #", "  5"]
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"train\.txt line 4: .* is not 'path label' with a whole number"):
        ListFile(written(tmp_path, f"a.png 0\n\nb.png 1\n{line}\nc.png 2\n"))


def test_a_file_that_is_no_list_is_refused_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="line 2: is longer than 8192 bytes; is this a text file"):
        ListFile(written(tmp_path, b"a 0\n" + bytes(10000)))
    monkeypatch.setattr(list_file, "BLOCK", 4096)
    with pytest.raises(DataError, match="line 1: is longer than"):
        ListFile(written(tmp_path, b" " * 20000))
    with pytest.raises(DataError, match="names no image"):
        ListFile(written(tmp_path, b"\n \n"))
    with pytest.raises(DataError, match="names no image"):
        ListFile(written(tmp_path, b""))
    with pytest.raises(DataError, match="cannot be opened"):
        ListFile(tmp_path / "absent.txt")


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    rows = [(f"p{'x' * int(random.integers(0, 40))} {i}.png", int(random.integers(0, 10**12))) for i in range(500)]
    text = "".join(f"{path} {label}\n" + "\n" * (i % 7 == 0) for i, (path, label) in enumerate(rows))
    monkeypatch.setattr(list_file, "BLOCK", 97)
    listed = ListFile(written(tmp_path, text))
    assert [(path.decode(), label) for path, label in zip(listed, listed.labels.tolist(), strict=True)] == rows
    assert text.split("\n")[listed.line(321) - 1] == f"{rows[321][0]} {rows[321][1]}"
    (tmp_path / "train.txt").write_text(text + "bad\n")
    with pytest.raises(DataError, match=f"line {text.count(chr(10)) + 1}: 'bad'"):
        ListFile(tmp_path / "train.txt")


def test_labels_with_gaps_are_refused_or_numbered_anew(faces: Path) -> None:
    path = written(faces, "p0/0.png 0\np1/0.png 2\np1/1.png 7\n")
    with pytest.raises(
        DataError, match=r"class 1 has no image; labels must be 0\.\.7 without gaps.* 3 of these 8.*relabel"
    ):
        ImageList(faces, path)
    source = ImageList(faces, path, relabel=True)
    assert (source.labels.tolist(), source.num_classes) == ([0, 1, 2], 3)


@pytest.mark.parametrize(
    ("labels", "missing"), [([0], 1), ([1], 0), ([0, 1, 2], 3), ([2, 0, 10**17], 1), ([0, 1, 1, 3], 2)]
)
def test_first_missing_class(labels: list[int], missing: int) -> None:
    assert first_missing(np.array(labels)) == missing


def test_relabelling_keeps_labels_that_have_no_gaps() -> None:
    labels, classes = checked_labels(np.array([1, 0, 1]), "x", relabel=True)
    assert (labels.tolist(), classes) == ([1, 0, 1], 2)


def test_a_missing_image_is_named_with_its_line(faces: Path) -> None:
    path = written(faces, LINES + "\np2/9.png 2\n")
    for check in ("sample", "all"):
        with pytest.raises(
            DataError, match=r"train\.txt line 6: .*p2/9\.png: there is no such image; .* start in '.*faces'"
        ):
            ImageList(faces, path, check_files=check)  # type: ignore[arg-type]
    with pytest.raises(CorruptImage, match=r"train\.txt line 6: .*p2/9\.png: there is no such image"):
        ImageList(faces, path, check_files="none").read(4)


def test_a_corrupt_image_is_named_with_its_line(faces: Path) -> None:
    (faces / "p1" / "0.png").write_bytes(b"\xff\xd8\xff\xda cut")
    with pytest.raises(CorruptImage, match=r"train\.txt line 2: .*p1/0\.png: the JPEG image is cut off"):
        ImageList(faces, written(faces, LINES)).read(1)


def test_fingerprint_follows_list_and_files(faces: Path) -> None:
    first = ImageList(faces, written(faces, LINES)).fingerprint()
    assert first == ImageList(faces, written(faces, LINES)).fingerprint()
    assert first != ImageList(faces, written(faces, LINES + "p2/0.png 2\n")).fingerprint()
    names = LINES.replace("p1/0", "p1/x").replace("p1/1", "p1/0").replace("p1/x", "p1/1")
    labels = LINES.replace("2.png 2", "2.png 1").replace("1.png 1", "1.png 2")
    for exchanged in (names, labels):  # as long as before
        assert first != ImageList(faces, written(faces, exchanged)).fingerprint()
    written(faces, LINES)
    (faces / "p0" / "0.png").write_bytes(b"other")
    assert first != ImageList(faces, faces / "train.txt").fingerprint()


def test_a_source_can_be_sent_to_another_process(faces: Path) -> None:
    source = ImageList(faces, written(faces, LINES))
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(3), source.read(3))
