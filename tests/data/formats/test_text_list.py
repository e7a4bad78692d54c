"""Lines and fields of lists as all editors and spreadsheets write them."""

from pathlib import Path

import pytest

from facelab.data.formats.text_list import (
    is_header,
    name_below,
    one_form,
    separator_of,
    split_fields,
    text_lines,
    with_slashes,
)
from facelab.errors import DataError


def test_marks_line_ends_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\r\n\r\nb\u2028c\n \nd".encode())
    assert list(text_lines(path)) == [(1, "a"), (3, "b\u2028c"), (5, "d")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a\nZoë\n".encode("latin-1"), r"list\.txt:2: is not text in UTF-8 \(byte 0xeb\); save the list as UTF-8"),
        ("a\n".encode("utf-16"), r"list\.txt:1: is not text in UTF-8 \(byte 0xff\)"),
        ("a\n".encode("utf-16-le"), r"list\.txt: is not a text file, or not in UTF-8"),
    ],
)
def test_other_encodings_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        text_lines(tmp_path / "list.txt")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: there is no such file"):
        text_lines(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"cannot be read \(it is a folder\)"):
        text_lines(tmp_path)


def test_fields() -> None:
    lines = {"a\tb, c": "\t", "a,b c": ",", "a;b c": ";", "a b": None}
    assert {line: separator_of(line) for line in lines} == lines
    assert split_fields(' a   "b  c"  d ', None, "x") == ["a", "b  c", "d"]
    assert split_fields(' "a ""b""" , c', ",", "x") == ['a "b"', "c"]
    assert split_fields(' it"s.jpg  b ', None, "x") == ['it"s.jpg', "b"]
    assert split_fields('"a,b', ",", "x") == ["a,b"]  # the quotation never ends: too few fields, which readers refuse
    with pytest.raises(DataError, match=r"x: .* cannot be split into fields"):
        split_fields('"' + 200_000 * "a", ",", "x")


def test_names() -> None:
    assert with_slashes(r"p\a.jpg") == "p/a.jpg"
    assert with_slashes(r"p/a\b.jpg") == r"p/a\b.jpg"
    assert one_form("Jose\u0301") == one_form("Jos\u00e9") == "Jos\u00e9"


@pytest.mark.parametrize(
    ("titles", "found"),
    [
        (["Path"], True),  # what stands behind may be left out
        (["path", "Person ID"], True),
        (["path", "7"], False),
        (["person id", "path"], False),
        (["path", "person id", "path"], False),
    ],
)
def test_a_line_of_titles(titles: list[str], found: bool) -> None:
    assert is_header(titles, (frozenset({"path"}), frozenset({"person_id"}))) is found


@pytest.mark.parametrize("name", ["a/1.png", "a\\1.png", "./a//1.png", "a/./1.png"])
def test_names_below_a_folder_have_one_form(name: str) -> None:
    assert name_below(name, "here") == "a/1.png"


@pytest.mark.parametrize("name", ["", ".", "/a/1.png", "../1.png", "a/../../1.png", "..\\1.png", "a/1\0.png"])
def test_names_outside_of_a_folder_are_refused(name: str) -> None:
    with pytest.raises(
        DataError,
        match="^here: '.*' is not a path below the folder of the images",
    ):
        name_below(name, "here")
