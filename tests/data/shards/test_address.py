"""Addresses: patterns and what they name, and what of them may be shown."""

from pathlib import Path

import pytest

from facelab.data.shards.address import expand, is_pattern, shown
from facelab.errors import ConfigError, DataError


def test_braces_count_and_choose() -> None:
    assert expand("s3://b/train-{0008..0011}.tar", ".tar") == [f"s3://b/train-{n:04d}.tar" for n in range(8, 12)]
    assert expand("x://{a,b}-{1..2}.tar", ".tar") == [f"x://{c}-{n}.tar" for c in "ab" for n in (1, 2)]
    assert expand(["x://b", "x://a"], ".tar") == ["x://b", "x://a"]
    assert expand("x://{odd}.tar", ".tar") == ["x://{odd}.tar"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("a-*.tar", True), ("a-{0..3}.tar", True), ("s3://b/a.tar", True), ("a.tar", False), ("C:/a.tar", False)],
)
def test_what_names_several_files_or_lies_elsewhere(text: str, found: bool) -> None:
    assert is_pattern(text) is found


def test_a_folder_and_a_star_are_files_in_order(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "c.txt", ".d.tar"):
        (tmp_path / name).touch()
    both = [str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]
    assert expand(str(tmp_path), ".tar") == both
    assert expand(f"{tmp_path}/*.tar", ".tar")[-2:] == both
    assert expand(str(tmp_path / "missing.tar"), ".tar") == [str(tmp_path / "missing.tar")]  # who opens it says so


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("x://{5..2}.tar", "{5..2} counts backwards"),
        ("x://{0..999999999}.tar", "names more than the 100,000 files"),
        ("x://{0..999}{0..999}.tar", "names 1,000,000 files"),
        ([], "name at least one"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace(".", r"\.").replace("{", r"\{")):
        expand(pattern, ".tar")


def test_what_is_not_there_or_twice_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no \.tar file"):
        expand(f"{tmp_path}/*.tar", ".tar")
    with pytest.raises(DataError, match="is named twice"):
        expand(["x://a.tar?key=secret", "x://a.tar?key=secret"], ".tar")


def test_passwords_and_signatures_are_not_shown() -> None:
    assert shown("https://ann:pass@host:8/a.tar?X-Signature=abc#z") == "https://host:8/a.tar?…"
    assert shown("s3://bucket/a.tar") == "s3://bucket/a.tar"
    assert shown("a?b.tar") == "a?b.tar"
