"""Lines of whole numbers: what is read, and what is refused with file and line."""

from pathlib import Path

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.lists import integer_lines
from facelab.test_protocol.lists.integer_lines import line_of_row, read_integer_lines


def read(tmp_path: Path, text: str, columns: int = 3) -> list[list[int]]:
    path = tmp_path / "pairs.txt"
    path.write_bytes(text.encode())
    return read_integer_lines(path, columns, "a b c").tolist()


@pytest.mark.parametrize(
    "text",
    [
        "1 23 0\n456 7 1\n",
        "1 23 0\n456 7 1",
        "1\t23\t0\r\n456 7 1\r\n",
        " 1  23 0 \n\n456\t7 1\n\n",
        "\n1 23 0\n456 7 1\n",
    ],
)
def test_ways_to_write_the_same(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == [[1, 23, 0], [456, 7, 1]]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_chunks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(integer_lines, "CHUNK", chunk)
    random = np.random.default_rng(0)
    rows = (10 ** random.uniform(0, 9, (200, 3))).astype(int).clip(0, 999_999_999).tolist()
    assert read(tmp_path, "".join(f"{a} {b} {c}\n" for a, b, c in rows)) == rows


@pytest.mark.parametrize("line", ["1 2", "1 2 3 4", "1 2 x", "1 2 -3", "1 2 1.5", "1 2 1234567890", "1,2,3", "é 1 2"])
@pytest.mark.parametrize("chunk", [8, 1 << 20])
def test_bad_lines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, chunk: int) -> None:
    monkeypatch.setattr(integer_lines, "CHUNK", chunk)
    with pytest.raises(DataError, match=rf"pairs\.txt:4: expected 'a b c', got '{line}'"):
        read(tmp_path, f"1 2 0\n\n3 4 1\n{line}\n5 6 0\n")


def test_two_lines_that_make_up_for_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pairs\.txt:1: expected 'a b c', got '1 2'"):
        read(tmp_path, "1 2\n3 4 5 6\n")


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: there is no such file"):
        read_integer_lines(tmp_path / "none.txt", 3, "a b c")
    for text in ("", "\n\n"):
        with pytest.raises(DataError, match=r"holds no line.*expected 'a b c'"):
            read(tmp_path, text)


def test_line_of_row_passes_over_blank_lines(tmp_path: Path) -> None:
    read(tmp_path, "\n1 2 3\n\n4 5 6\n")
    assert [line_of_row(tmp_path / "pairs.txt", row) for row in (0, 1)] == [2, 4]
