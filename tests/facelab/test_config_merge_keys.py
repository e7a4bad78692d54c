"""``<<`` lays one mapping under another; that is no key that stands twice."""

import pytest

from facelab.errors import ConfigError
from facelab.outside.yaml import parse_yaml


def test_merged_keys_lose_against_those_written_out() -> None:
    text = "base: &base {depth: 50, width: 1}\nwide: &wide {<<: *base, width: 2}\ndeep: {<<: *wide, depth: 100}\n"
    assert parse_yaml(text, "test") == {
        "base": {"depth": 50, "width": 1},
        "wide": {"depth": 50, "width": 2},
        "deep": {"depth": 100, "width": 2},
    }


def test_a_key_written_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="key 'depth' stands twice"):
        parse_yaml("base: &base {depth: 50}\ndeep: {<<: *base, depth: 100, depth: 18}\n", "test")
