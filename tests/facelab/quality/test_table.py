"""Quality score tables: what is written comes back, in any order, and nothing damaged is believed."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.quality.card import ScorerCard
from facelab.quality.table import QualityScores, ScoreTable, write_scores

CARD = ScorerCard(name="BRISQUE", version="3", low=0.0, high=1.0)


class Names:
    def __init__(self, names: Sequence[str], fingerprint: str = "f0") -> None:
        self.names = names
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def fingerprint(self) -> str:
        return self._fingerprint


IMAGES = Names(["a/1.jpg", 'b, "c"/2.jpg', "\udce9/3.jpg", "d\n4.jpg"])
VALUES = np.array([0.1, 1.0, np.nan, 1 / 3], np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "quality.csv"
    write_scores(path, IMAGES, VALUES, CARD)
    return path


def test_a_table_comes_back_exactly_and_can_be_read_by_people(table: Path) -> None:
    read = ScoreTable(table)
    assert read.scorer == CARD
    np.testing.assert_array_equal(read.of(IMAGES).values, VALUES)
    lines = table.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    assert lines[0].startswith('# {"format":"facelab scores 1"')
    assert lines[1:3] == ["name,score", "a/1.jpg,0.1"]
    assert [path.name for path in table.parent.iterdir()] == ["quality.csv"]


def test_another_set_is_looked_up_by_name(table: Path) -> None:
    other = Names(["d\n4.jpg", "a/1.jpg", "d\n4.jpg"], "f1")
    np.testing.assert_array_equal(ScoreTable(table).of(other).values, VALUES[[3, 0, 3]])


def test_images_without_a_row_are_named(table: Path) -> None:
    with pytest.raises(DataError, match=r"quality\.csv: has no score for 2 of 3 images, the first is 'x\.jpg'; .*iqa"):
        ScoreTable(table).of(Names(["a/1.jpg", "x.jpg", "y.jpg"], "f1"))


def test_one_name_with_two_scores_serves_only_its_own_set(tmp_path: Path) -> None:
    twins = Names(["a", "a"])
    write_scores(tmp_path / "q.csv", twins, np.array([0.25, 0.5]), CARD)
    np.testing.assert_array_equal(ScoreTable(tmp_path / "q.csv").of(twins).values, [0.25, 0.5])
    with pytest.raises(DataError, match=r"q\.csv, line 4: 'a' has another score above"):
        ScoreTable(tmp_path / "q.csv").of(Names(["a"], "f1"))


def test_the_hash_follows_the_scores(table: Path, tmp_path: Path) -> None:
    write_scores(tmp_path / "same.csv", IMAGES, VALUES, CARD)
    write_scores(tmp_path / "other.csv", IMAGES, VALUES * np.float32(0.5), CARD)
    hashes = [ScoreTable(path).fingerprint() for path in (table, tmp_path / "same.csv", tmp_path / "other.csv")]
    assert hashes[0] == hashes[1] != hashes[2]
    write_scores(tmp_path / "card.csv", IMAGES, VALUES, CARD.model_copy(update={"version": "4"}))
    write_scores(tmp_path / "set.csv", Names(IMAGES.names, "f1"), VALUES, CARD)
    for name in ("card.csv", "set.csv"):
        assert ScoreTable(tmp_path / name).fingerprint() != hashes[0]


def test_a_name_may_lack_its_score_twice(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.csv", Names(["a", "a"]), np.full(2, np.nan, np.float32), CARD)
    assert np.isnan(ScoreTable(tmp_path / "a.csv").of(Names(["a"], "f1")).values).tolist() == [True]


def test_three_fields_are_refused(table: Path) -> None:
    table.write_bytes(table.read_bytes().replace(b"1.jpg,0.1\n", b"1.jpg,0.1,0.2\n"))
    with pytest.raises(DataError, match="line 3: expected name and score, got 3 fields"):
        ScoreTable(table)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            b"1.jpg,0.1\n",
            b"1.jpg,nan\n",
            r"line 3: the score of 'a/1.jpg' is nan, outside of .*BRISQUE, 0 to 1, higher",
        ),
        (b"1.jpg,0.1\n", b"1.jpg,1e999\n", "is 1e999, outside"),
        (b"1.jpg,0.1\n", b"1.jpg,1.01\n", "is 1.01, outside"),
        (b"1.jpg,0.1\n", b"1.jpg,good\n", "line 3: the score of 'a/1.jpg' is 'good', not a number"),
        (b"1.jpg,0.1\n", b"1.jpg\n", "line 3: expected name and score, got 1 fields"),
        (b"a/1.jpg,0.1\n", b"", "is cut off: it has 3 of 4 scores"),
        (b"0.33333334\n", b"0.3", "is cut off"),
        (b"name,score", b"score,name", "line 2: expected the columns name,score"),
        (b"facelab scores 1", b"facelab scores 9", "format 'facelab scores 9'; this facelab reads"),
        (b'"images":4', b'"images":-4', "is not a table of quality scores"),
        (b'"low":0.0', b'"low":NaN', "is not a table of quality scores"),
        (b"# {", b"\xff\x00\xfe", "is not a table of quality scores"),
    ],
)
def test_damage_is_refused(table: Path, old: bytes, new: bytes, sentence: str) -> None:
    content = table.read_bytes()
    assert old in content
    table.write_bytes(content.replace(old, new))
    with pytest.raises(DataError, match=f"quality\\.csv.*{sentence}"):
        ScoreTable(table).of(IMAGES)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: the quality scores cannot be read .*facelab iqa score DATA"):
        ScoreTable(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="is not a table of quality scores"):
        ScoreTable(tmp_path / "empty.csv")


def test_only_what_can_be_read_back_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a/1\.jpg: the score 1\.5 is not allowed \(BRISQUE, 0 to 1"):
        write_scores(tmp_path / "q.csv", IMAGES, VALUES + np.float32([1.4, 0, 0, 0]), CARD)
    with pytest.raises(DataError, match="4 images need as many scores"):
        write_scores(tmp_path / "q.csv", IMAGES, VALUES[:3], CARD)
    assert not list(tmp_path.iterdir())


def test_direction_and_required_scores() -> None:
    scores = QualityScores(VALUES, CARD.model_copy(update={"higher_is_better": False}), "t")
    np.testing.assert_array_equal(scores.scorer.quality(scores.values), -VALUES)
    scores.require(IMAGES, np.array([0, 1, 3]))
    with pytest.raises(DataError, match=r"3\.jpg: the image has no quality score \(1 images have none\)"):
        scores.require(IMAGES)
    with pytest.raises(DataError, match="4 quality scores for 1 images"):
        scores.require(Names(["a"]))


def test_a_scorer_needs_an_honest_range() -> None:
    with pytest.raises(ValueError, match=r"low 1\.0 must be below high 0\.0"):
        ScorerCard(name="x", low=1.0, high=0.0)


def test_names_like_formulas_are_written_as_text_and_come_back(tmp_path: Path) -> None:
    names = ["=1+1/a.jpg", "-x.jpg", "plain.jpg", "'=odd.jpg"]
    card = ScorerCard(name="Made")
    write_scores(tmp_path / "t.csv", Names(names), np.arange(4, dtype=np.float32), card)
    assert "\n'=1+1/a.jpg,0.0\n'-x.jpg,1.0\nplain.jpg,2.0\n''=odd.jpg,3.0\n" in (tmp_path / "t.csv").read_text()
    table = ScoreTable(tmp_path / "t.csv")
    assert list(table.names()) == names
    assert table.of(Names(names[::-1], "other")).values.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "".join(f"{line},,\n" for line in text.splitlines()),
    ],
)
def test_what_editors_and_spreadsheets_make_of_a_table_is_read(edit: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_scores(path, Names(["a", "b"]), np.array([0.25, 0.5], np.float32), CARD)
    first, *rest = path.read_text().splitlines(keepends=True)
    quoted = io.StringIO()
    csv.writer(quoted, lineterminator="\n").writerow(first.strip().split(","))
    for header in (first, quoted.getvalue()):
        path.write_text(edit("".join([header, *rest])), newline="")
        assert ScoreTable(path).values.tolist() == [0.25, 0.5]
        assert list(ScoreTable(path).names()) == ["a", "b"]


def test_a_last_line_without_its_end_and_rows_too_many_are_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_scores(path, Names(["a", "b"]), np.array([0.25, 0.5], np.float32), CARD)
    text = path.read_text()
    path.write_text(text.rstrip("\n"))
    with pytest.raises(
        DataError, match="is cut off, or its last line lacks its end; if its score is whole, add a line"
    ):
        ScoreTable(path)
    path.write_text(text + "b,0.5\n")
    with pytest.raises(DataError, match="has 3 scores, but its first line says 2"):
        ScoreTable(path)
