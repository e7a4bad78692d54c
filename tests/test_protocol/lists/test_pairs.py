"""Parsers of pair lists: every form, and errors that name file and line."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from facelab.errors import DataError
from facelab.test_protocol.protocols import agedb, calfw, cfp, cplfw, lfw, rfw

LFW_LINES = ["2\t1", "Al\t1\t2", "Al\t1\tBo_de_Ro\t13", "Cy\t2\t4", "Cy\t2\tAl\t1"]


def written(path: Path, lines: list[str], newline: str = "\n") -> Path:
    path.write_bytes(newline.join([*lines, ""]).encode())
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lfw(tmp_path: Path, newline: str) -> None:
    listed = lfw.read_lfw(written(tmp_path / "pairs.txt", LFW_LINES, newline))
    assert list(listed.named()) == [
        ("Al/Al_0001.jpg", "Al/Al_0002.jpg", True),
        ("Al/Al_0001.jpg", "Bo_de_Ro/Bo_de_Ro_0013.jpg", False),
        ("Cy/Cy_0002.jpg", "Cy/Cy_0004.jpg", True),
        ("Cy/Cy_0002.jpg", "Al/Al_0001.jpg", False),
    ]
    assert listed.fold.tolist() == [0, 0, 1, 1]
    assert len(listed.images) == 5  # each image once
    assert listed.folds == 2


def test_lfw_header_of_one_number_means_one_fold(tmp_path: Path) -> None:
    listed = lfw.read_lfw(written(tmp_path / "dev.txt", ["2", "Al\t1\t2", "Bo\t1\t2", "Al\t1\tBo\t1", "Al\t2\tBo\t2"]))
    assert listed.folds == 1
    assert listed.same.tolist() == [True, True, False, False]


def test_lfw_names_with_blanks_and_blank_separated_lists(tmp_path: Path) -> None:
    tabbed = ["1\t1", "Al de Bo\t1\t2", "Al de Bo\t1\tCy\t3"]
    blanks = ["1 1", "Al de Bo 1 2", "Al de Bo 1 Cy 3"]
    first, second = (lfw.read_lfw(written(tmp_path / "p.txt", lines)) for lines in (tabbed, blanks))
    assert list(first.named()) == list(second.named())
    assert first.images[0] == "Al de Bo/Al de Bo_0001.jpg"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x"], r"pairs\.txt:1: the first line must be 'folds<TAB>pairs', got 'x'"),
        (["1\t1", "Al\t1\t2", "Al\t1\tBo"], r"pairs\.txt:3: expected 'name i j' or 'name1 i name2 j', got 'Al\t1\tBo'"),
        (["1\t1", "Al\tone\t2", "Al\t1\tBo\t1"], r"pairs\.txt:2: expected"),
        (["1 1", "Al 1 2 3 4", "Al 1 Bo 1"], r"pairs\.txt:2: expected"),
        (["2\t1", "Al\t1\t2", "Al\t1\tBo\t1"], r"promises 2 folds of 1 same and 1 different pairs, that is 4, but 2"),
        (
            ["2\t1", "Al\t1\t2", "Al\t1\t3", "A\t1\tB\t1", "A\t2\tB\t1"],
            r"fold 1 has 2 same pairs, the header promises 1",
        ),
        (["0\t0"], "but 0 pairs follow"),
        ([], "the first line must be"),
    ],
)
def test_lfw_refusals(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        lfw.read_lfw(written(tmp_path / "pairs.txt", lines))


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: there is no such file"):
        lfw.read_lfw(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"binary\.txt:1: is not text in UTF-8"):
        rfw.read_rfw(tmp_path / "binary.txt")


def test_rfw_has_no_header_and_ten_folds(tmp_path: Path) -> None:
    lines = [f"m.{n}\t1\t2" if n % 2 else f"m.{n}\t1\tm.x\t2" for n in range(20)]
    listed = rfw.read_rfw(written(tmp_path / "r.txt", lines))
    assert listed.fold.tolist() == np.repeat(np.arange(10), 2).tolist()
    with pytest.raises(DataError, match="9 pairs are too few for 10 folds"):
        rfw.read_rfw(written(tmp_path / "r.txt", lines[:9]))


def test_cplfw_folds_share_both_classes_and_take_the_first_label(tmp_path: Path) -> None:
    lines = []
    for number in range(40):
        label = int(number < 20)
        lines += [f"a{number}.jpg {label}", f"b{number}.jpg {1 - label}"]
    listed = cplfw.read_cplfw(written(tmp_path / "c.txt", lines))
    assert listed.same.tolist() == [True, True, False, False] * 10
    assert listed.fold.tolist() == np.repeat(np.arange(10), 4).tolist()
    assert next(listed.named()) == ("a0.jpg", "b0.jpg", True)
    assert list(listed.named())[2] == ("a20.jpg", "b20.jpg", False)


def test_calfw_labels_are_fold_numbers(tmp_path: Path) -> None:
    lines = [f"{side}{n}.jpg {n + 1 if n < 10 else 0}" for n in range(20) for side in "ab"]
    listed = calfw.read_calfw(written(tmp_path / "c.txt", lines))
    assert listed.same.sum() == 10


def test_two_line_lists_refuse(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.txt:2: expected 'image label', got 'b\.jpg'"):
        cplfw.read_cplfw(written(tmp_path / "c.txt", ["a.jpg 1", "b.jpg"]))
    with pytest.raises(DataError, match="odd number"):
        cplfw.read_cplfw(written(tmp_path / "c.txt", ["a.jpg 1"]))


def agedb_file(path: Path, stem: object = "x_1", label: int = 1) -> Path:
    cells = np.empty((2, 3), object)
    for row, column in np.ndindex(2, 3):
        cells[row, column] = {"name": f"{row}_{column}"}
    cells[0, 0] = {"name": stem}
    splits = np.empty((10, 1), object)
    for number in range(10):
        splits[number, 0] = {"anything": cells, "whatever": np.array([[label, -1, 1]])}
    savemat(path, {"splits": splits})
    return path


def test_agedb_takes_fields_by_position(tmp_path: Path) -> None:
    listed = agedb.read_agedb(agedb_file(tmp_path / "a.mat"))
    assert list(listed.named())[:2] == [("x_1.jpg", "1_0.jpg", True), ("0_1.jpg", "1_1.jpg", False)]
    assert listed.fold.tolist() == np.repeat(np.arange(10), 3).tolist()


def test_agedb_is_hostile_until_checked(tmp_path: Path) -> None:
    (tmp_path / "noise.mat").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(DataError, match=r"noise\.mat: is not a readable MATLAB file"):
        agedb.read_agedb(tmp_path / "noise.mat")
    savemat(tmp_path / "other.mat", {"something": 1})
    with pytest.raises(DataError, match="has no variable 'splits'"):
        agedb.read_agedb(tmp_path / "other.mat")
    savemat(tmp_path / "numbers.mat", {"splits": np.arange(3.0)})
    with pytest.raises(DataError, match="has no variable 'splits'"):
        agedb.read_agedb(tmp_path / "numbers.mat")
    with pytest.raises(DataError, match="split 1 has labels other than 1 and -1"):
        agedb.read_agedb(agedb_file(tmp_path / "l.mat", label=7))
    with pytest.raises(DataError, match="split 1 holds something else than image names"):
        agedb.read_agedb(agedb_file(tmp_path / "s.mat", stem=3.5))
    with pytest.raises(DataError, match="there is no such file"):
        agedb.read_agedb(tmp_path / "none.mat")
    cut = agedb_file(tmp_path / "cut.mat")
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cut\.mat"):
        agedb.read_agedb(cut)


def cfp_folder(root: Path) -> Path:
    for letter in "FP":
        kind = "frontal" if letter == "F" else "profile"
        lines = [f"{n} ../Data/Images/001/{kind}/{n:02d}.jpg" for n in range(1, 4)]
        root.mkdir(exist_ok=True)
        written(root / f"Pair_list_{letter}.txt", lines)
        for fold in ("01", "02"):
            folder = root / "Split" / f"F{letter}" / fold
            folder.mkdir(parents=True)
            written(folder / "same.txt", ["1,2"])
            written(folder / "diff.txt", ["2,3", "3,1"])
    return root


def test_cfp(tmp_path: Path) -> None:
    listed = cfp.read_cfp(cfp_folder(tmp_path / "Protocol"), "FP")
    assert next(listed.named()) == ("Data/Images/001/frontal/01.jpg", "Data/Images/001/profile/02.jpg", True)
    assert listed.fold.tolist() == [0, 0, 0, 1, 1, 1]
    assert listed.same.tolist() == [True, False, False] * 2


def test_cfp_refusals(tmp_path: Path) -> None:
    root = cfp_folder(tmp_path / "Protocol")
    with pytest.raises(DataError, match="kinds FF and FP, not 'PP'"):
        cfp.read_cfp(root, "PP")
    written(root / "Split" / "FP" / "02" / "same.txt", ["1,2", "1,99"])
    with pytest.raises(DataError, match=r"same\.txt:2: '1,99' does not name two images"):
        cfp.read_cfp(root, "FP")
    with pytest.raises(DataError, match=r"Pair_list_F\.txt: there is no such file"):
        cfp.read_cfp(tmp_path, "FF")


def test_keeping_some_pairs_keeps_their_folds(tmp_path: Path) -> None:
    listed = lfw.read_lfw(written(tmp_path / "pairs.txt", ["3\t1", *LFW_LINES[1:], "Di\t1\t2", "Di\t1\tEd\t1"]))
    kept = listed.keep(np.array([True, True, False, False, True, True]))
    assert kept.fold.tolist() == [0, 0, 1, 1]  # numbered anew without gaps
    assert "Cy/Cy_0002.jpg" not in kept.images
