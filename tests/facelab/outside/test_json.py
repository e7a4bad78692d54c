"""JSON from outside: what is right comes back, everything else is one sentence."""

import json
from pathlib import Path

import pytest

from facelab.errors import CheckpointError, DataError
from facelab.outside.json import MAX_DEPTH, parse_json, read_json


def test_reads_what_json_writes(tmp_path: Path) -> None:
    tree = {"a": [1, 2.5, None, True, "é"], "b": {"c": [[-(2**63), 2**64 - 1]]}}
    file = tmp_path / "file.json"
    file.write_text("\ufeff" + json.dumps(tree), encoding="utf-8")
    assert read_json(file, "a report") == tree


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not a report in JSON"),
        ("", "is not a report in JSON"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 64 deep"),
        ('{"a":' * 100_000, "nested more than 64 deep"),
        ("[NaN]", "it holds NaN"),
        ("[-Infinity]", "it holds -Infinity"),
        ("1" * 5000, "has more than 64 bits"),
        (str(2**64), "has more than 64 bits"),
    ],
)
def test_refuses(text: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"^here: .*{reason}"):
        parse_json(text, "here", "a report")


def test_deepest_that_is_allowed() -> None:
    tree = parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "here", "a report")
    assert isinstance(tree, list)


def test_number_of_values_is_limited() -> None:
    assert parse_json("[" + "0," * 62 + "0]", "here", "a list", limit=1024) == [0] * 63
    with pytest.raises(DataError, match="more than 64 values"):
        parse_json("[" + "0," * 64 + "0]", "here", "a list", limit=1024)
    assert parse_json("[" + "{}," * 31 + "{}]", "here", "a list", limit=1024) == [{}] * 32
    with pytest.raises(DataError, match="more than 64 values"):
        parse_json("[" + "{}," * 32 + "{}]", "here", "a list", limit=1024)


def test_number_of_characters_is_limited() -> None:
    assert parse_json('"' + "a" * 1022 + '"', "here", "a text", limit=1024) == "a" * 1022
    with pytest.raises(DataError, match="more than 1,024 characters"):
        parse_json('"' + "a" * 1023 + '"', "here", "a text", limit=1024)


def test_size_is_limited_before_reading(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    with file.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(DataError, match="more than the 67,108,864 that are read"):
        read_json(file, "a report")


def test_error_class_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none.json: cannot be read .*it should be a card in JSON"):
        read_json(tmp_path / "none.json", "a card", error=CheckpointError)


def test_not_finite_where_it_is_allowed() -> None:
    assert parse_json("[Infinity]", "here", "landmarks", not_finite=True) == [float("inf")]
