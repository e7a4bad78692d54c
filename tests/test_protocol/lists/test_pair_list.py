"""Own pairs: every form of the file, people of folders, refusals with file and line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings
from facelab.test_protocol.lists.pair_list import OwnPairs, read_pair_list

PAIRS = [("p/a.jpg", "p/b.jpg", 1), ("p/a.jpg", "q/c d.jpg", 0), ("q/c d.jpg", "q/e.jpg", 1), ("q/e.jpg", "p/b.jpg", 0)]


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("separator", ["\t", ",", ", "])
def test_fields_are_separated(separator: str, tmp_path: Path) -> None:
    lines = [separator.join([left, right, str(label)]) for left, right, label in PAIRS]
    listed = read_pair_list(written(tmp_path / "pairs.txt", lines))
    assert list(listed.named()) == [(left, right, label == 1) for left, right, label in PAIRS]
    assert listed.folds == 1
    assert listed.wanted_by(3) == f"{tmp_path / 'pairs.txt'}:3"


def test_blanks_and_folds(tmp_path: Path) -> None:
    listed = read_pair_list(written(tmp_path / "pairs.txt", ["a  b 1 7", "", "a c 0   7", "c d 1 9", "b d 0 9"]))
    assert listed.fold.tolist() == [0, 0, 1, 1]
    assert listed.lines[:, 0].tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["a b 1", "a b 2"],
            r"pairs\.txt:2: expected 'image1 image2 label \[fold\]', .* with label 0 or 1 .*, got 'a b 2'",
        ),
        (["a b 1", "a b 1 3"], r"pairs\.txt:2: expected"),
        (["a b 1 x"], r"pairs\.txt:1: expected"),
        (["a b"], r"pairs\.txt:1: expected"),
        (["#1/a #2/b maybe", "# a b"], r"pairs\.txt: there are no pairs in it"),
        ([""], r"pairs\.txt: there are no pairs in it"),
        (["image1 image2 label"], r"pairs\.txt: there are no pairs in it"),
        (["a b maybe"], r"pairs\.txt:1: expected"),
        (["a b 1", "image1 image2 label"], r"pairs\.txt:2: expected"),
        (['"a b 1'], r"pairs\.txt:1: expected"),
        (["a b 1 " + "9" * 30], r"pairs\.txt:1: expected"),
    ],
)
def test_refusals(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_pair_list(written(tmp_path / "pairs.txt", lines))


@pytest.mark.parametrize(
    "text",
    [
        "image1,image2,label\np/a.jpg,q/c d.jpg,0\np/a.jpg,p/b.jpg,1\n",
        "\ufeffPath_1\tPath_2\tSame\tFold\r\np/a.jpg\tq/c d.jpg\tFalse\t1\r\np/a.jpg\tp/b.jpg\tTRUE\t1\r\n",
        '"p/a.jpg" "q/c d.jpg" false\n  p/a.jpg   p/b.jpg   true\n',
        '"p/a.jpg","q/c d.jpg","0"\n"p/a.jpg",p/b.jpg,1',
        "p\\a.jpg;q\\c d.jpg;0\np\\a.jpg;p\\b.jpg;1\n",
        "# made by hand\n\n'p/a.jpg', 'q/c d.jpg', no\n#,\n'p/a.jpg', 'p/b.jpg', yes\n",
        "#image1,image2,label\np/a.jpg,q/c d.jpg,-1\np/a.jpg,p/b.jpg,1.0\n",
        "p/a.jpg\tq/c d.jpg\tDifferent\np/a.jpg\tp/b.jpg\tSame\n",
    ],
)
def test_forms_that_other_programs_write(text: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_bytes(text.encode())
    listed = read_pair_list(tmp_path / "pairs.txt")
    assert list(listed.named()) == [("p/a.jpg", "q/c d.jpg", False), ("p/a.jpg", "p/b.jpg", True)]
    assert listed.folds == 1


def test_a_person_whose_name_begins_like_a_comment(tmp_path: Path) -> None:
    listed = read_pair_list(written(tmp_path / "pairs.txt", ["#1/a.jpg #2/b.jpg 0", "#1/a.jpg #1/b.jpg 1"]))
    assert len(list(listed.named())) == 2


def own(tmp_path: Path, pairs: list[tuple[str, str, int]], **options: Any) -> OwnPairs:
    for left, right, _ in pairs:
        for name in (left, right):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
    path = written(tmp_path / "pairs.csv", [f"{left},{right},{label}" for left, right, label in pairs])
    protocol = PROTOCOLS.build("PairList", {"root": str(tmp_path), "pairs": str(path), **options})
    assert isinstance(protocol, OwnPairs)
    return protocol


def test_people_are_folders_where_the_answers_agree(tmp_path: Path) -> None:
    assert own(tmp_path, PAIRS, folds=2).people.tolist() == [0, 0, 1, 1]
    assert set(own(tmp_path, [*PAIRS, ("p/a.jpg", "q/e.jpg", 1)], folds=2).people.tolist()) == {-1}
    assert set(own(tmp_path, [*PAIRS, ("x.jpg", "y.jpg", 1)], folds=2).people.tolist()) == {-1}  # in no folder


def test_tar_is_the_headline_without_folds(tmp_path: Path) -> None:
    protocol = own(tmp_path, PAIRS, folds=1, fars=[0.5], name="BRIAR")
    report = protocol.evaluate(Embeddings(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)))
    assert (report.protocol, report.headline.name, report.headline.value) == ("BRIAR", "TAR@FAR=5e-1", 1.0)


def test_a_missing_image_is_named_with_its_line(tmp_path: Path) -> None:
    own(tmp_path, PAIRS, folds=2)
    (tmp_path / "q" / "e.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 of 4 images are missing, the first is 'q/e\.jpg', which .*pairs\.csv:3 names"
    ):
        PROTOCOLS.build("PairList", {"root": str(tmp_path), "pairs": str(tmp_path / "pairs.csv"), "folds": 2})
