"""What was left out and why: how much of it is kept, and how it is written."""

import csv
import json
from pathlib import Path

import pytest

from facelab.data.loading.refusals import Refusal, Refusals
from facelab.errors import ConfigError, DataError


def refused(count: int, limit: int) -> Refusals:
    found = Refusals(limit)
    for number in range(count):
        found.add(f"a/{number}.png", f"=reason {number}, said")
    return found


@pytest.mark.parametrize(("count", "limit", "missing"), [(0, 3, 0), (2, 3, 0), (3, 3, 0), (5, 3, 2)])
def test_the_first_are_kept_and_the_rest_is_counted(count: int, limit: int, missing: int, tmp_path: Path) -> None:
    found = refused(count, limit)
    assert found.count == count
    assert found.entries == [Refusal(f"a/{n}.png", f"=reason {n}, said") for n in range(min(count, limit))]
    found.write(tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rest = [{"location": "", "reason": f"{missing} more are not listed."}] if missing else []
    assert lines == [{"location": one.location, "reason": one.reason} for one in found.entries] + rest


def test_a_table_has_titles_and_no_formulas(tmp_path: Path) -> None:
    found = refused(1, 3)
    found.add("b/\udcff.png", "a name that is no text")
    found.write(tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_text(encoding="utf-8", errors="surrogateescape")
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["location", "reason"]
    assert rows[1] == ["a/0.png", "'=reason 0, said"]
    assert rows[2] == ["b/\udcff.png", "a name that is no text"]
    assert len(rows) == 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"out\.txt: a list of refused images is written as \.jsonl or \.csv"):
        refused(1, 1).write(tmp_path / "out.txt")
    with pytest.raises(DataError, match=r"none/out\.csv: cannot be written \(No such file or directory\)"):
        refused(1, 1).write(tmp_path / "none" / "out.csv")
