import os
from pathlib import Path
from typing import Any

import pytest

from facelab.errors import ConfigError
from facelab.outside.yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_yaml, read_yaml

KEYS = "".join(f"k{number}: 1\n" for number in range(60_000))


def laughs(levels: int, width: int, *, merge: bool = False) -> str:
    """Every level holds the one before it several times."""
    lines = ["l0: &l0 {x: 1}"]
    for level in range(1, levels):
        alias = f"*l{level - 1}"
        value = f"{{<<: [{', '.join([alias] * width)}]}}" if merge else f"[{', '.join([alias] * width)}]"
        lines.append(f"l{level}: &l{level} {value}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (KEYS, f"line {MAX_VALUES // 2 + 1}: it has more than 20,000 values"),
        ("[" + "[], " * 30_000 + "]", "it has more than 20,000 values"),
        (laughs(10, 9), "it has more than 20,000 values, those that aliases stand for included"),
        (laughs(10, 9, merge=True), "it has more than 20,000 values, those that aliases stand for included"),
        (laughs(MAX_DEPTH + 2, 1), "its aliases nest it more than 64 deep"),
        ("a: &a {x: *a}", "line 1: an alias stands inside of what it stands for"),
        ("a: &a\n- b\n- [*a]", "line 3: an alias stands inside of what it stands for"),
        ("a: *b", "line 1: found undefined alias 'b'"),
        ("[" * 100_000, "it is nested more than 64 deep"),
        ("{a: " * 100_000, "it is nested more than 64 deep"),
        ("a: 1\n" + "#" * MAX_BYTES, "has 1,048,581 characters, more than the 1,048,576 that settings may have"),
        ("a: !!bool maybe", "line 1: 'maybe' is no bool"),
        ("a: !!int maybe", "'maybe' is no int"),
        ("a: !!int ''", "'' is no int"),
        ("a: !!float maybe", "'maybe' is no float"),
        ("a: 1:" + "59:" * 300_000 + "59", "line 1: '1:59:.*…' is no int"),
        ("a: 0x" + "f" * 500, "line 1: '0xff.*…' is no int"),
        ("a: 1:" + "59:" * 300 + "59.5", "line 1: '1:59:.*…' is no float"),
        (f"a: {'1' * 5000}", f"line 1: '{'1' * 40}…' is no int"),
        ("a: !!timestamp maybe", "could not determine a constructor for the tag 'tag:yaml.org,2002:timestamp'"),
        ("a: !!binary aGVsbG8=", "could not determine a constructor"),
        ("a: !!set {b, c}", "could not determine a constructor"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !mine 1", "could not determine a constructor for the tag '!mine'"),
        ("a: {1: b}", "the key 1 is no text; write it in quotes"),
        ("yes: 1", "the key True is no text; write it in quotes"),
        ("? [a]\n: 1", "found unhashable key"),
        ('a: "x\\0y"', r"the text 'x\\x00y' holds a character that cannot be written"),
        ('a: "\\ud800"', "holds a character that cannot be written"),
        ("a: \x01", "is not valid YAML: unacceptable character"),
        ("a: 1\n--- \nb: 2", "expected a single document|but found another document"),
    ],
)
def test_what_is_beyond_settings_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        parse_yaml(text, "'run.yaml'")
    assert str(caught.value).startswith("'run.yaml'")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-31", "2024-01-31"),
        ("2024-13-99", "2024-13-99"),
        ("=", "="),
        ("!!str 12", "12"),
        ("&a [1, 2]", [1, 2]),
        ("null", None),
    ],
)
def test_what_settings_may_hold(text: str, value: Any) -> None:
    assert parse_yaml(f"x: {text}", "test") == {"x": value}


def test_aliases_within_the_limits_stand_for_what_they_name() -> None:
    assert parse_yaml("a: &a {x: [1]}\nb: *a\nc: [*a, *a]", "test")["c"] == [{"x": [1]}, {"x": [1]}]


def test_as_many_values_as_are_allowed() -> None:
    text = "".join(f"k{number}: 1\n" for number in range(MAX_VALUES // 2 - 1))
    assert len(parse_yaml(text, "test")) == MAX_VALUES // 2 - 1


def test_as_deep_as_is_allowed() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "test")
    with pytest.raises(ConfigError, match="nested more than 64 deep"):
        parse_yaml("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "test")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it is not UTF-8 text"),
        (b"name: \xff\xfe", "it is not UTF-8 text"),
        (b"\0" * 10, "is not valid YAML: unacceptable character"),
        (b" " * (MAX_BYTES + 1), "it has 1,048,577 bytes, more than the 1,048,576 that are read"),
        (b"just words", "must hold `key: value` lines, got str"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        read_yaml(tmp_path / "run.yaml")


def test_an_empty_file_and_a_byte_order_mark_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"")
    assert read_yaml(tmp_path / "run.yaml") == {}
    (tmp_path / "run.yaml").write_bytes(b"\xef\xbb\xbfname: a\r\n")
    assert read_yaml(tmp_path / "run.yaml") == {"name": "a"}


def test_a_pipe_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_yaml(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="it is a folder"):
        read_yaml(tmp_path)
