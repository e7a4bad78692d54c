"""Only `FacelabError` may leave the readers of settings, whatever a file, an override or a tree says."""

from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from facelab.errors import FacelabError
from facelab.outside.yaml import parse_yaml
from facelab.run.settings import load_config, load_tree, make_config
from facelab.run.shipped import shipped_configs
from facelab.run.study import make_study

TINY = Path(__file__).parent.parent / "tiny_run.yaml"
EVERY_TIME = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

PIECES = st.sampled_from(
    [
        *(
            "{",
            "}",
            "[",
            "]",
            ": ",
            ", ",
            "- ",
            "? ",
            "\n",
            "  ",
            "&a ",
            "*a",
            "<<: ",
            "!!",
            "!!bool ",
            "!!int ",
            "!!set ",
        ),
        *(
            "!!float ",
            "!x ",
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "|\n",
            ">\n",
            "'",
            '"',
            "#",
            "\t",
            "\\x00",
            "\\ud800",
            "~",
        ),
        *(
            "null",
            "true",
            "1e999",
            ".nan",
            "-.inf",
            "0x",
            "0b2",
            "08",
            "1:2:3",
            "2024-99-99",
            "=",
            "9" * 30,
            "extends: ",
        ),
        *("name", "seed", "training", "epochs", "head", "ArcFace", "data", "source", "variants", "base", "columns"),
    ]
)
ODD_VALUES = st.recursive(
    st.sampled_from([None, True, -1, 0, 1, 2**31, 2**63, 2**64, -(2**70), 10**4000, 0.5, 1e308, float("nan")])
    | st.sampled_from(
        [float("inf"), "", "x", "nan", "1e999", "0", "a/b", "..", "/", "x" * 5000, "ArcFace", "[", "é\n"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "", "ArcFace", "lr"]), inner),
    max_leaves=4,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree, inner ones too."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inside for place in places(value, (*path, key)))][(not path) :]


FULL = load_config(str(TINY)).tree()
STUDY = load_tree("adaptation")
PLACES = places(FULL)


@EVERY_TIME
@given(st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join))
def test_text(text: str) -> None:
    with suppress(FacelabError):
        parse_yaml(text, "test")


@EVERY_TIME
@example(content=b"variants: 5")
@given(content=st.binary(max_size=100) | st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode()))
def test_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with suppress(FacelabError):
        load_config(str(path))


@EVERY_TIME
@given(st.sampled_from([".".join(map(str, place)) for place in PLACES]), st.lists(PIECES, max_size=4).map("".join))
def test_overrides(key: str, text: str) -> None:
    with suppress(FacelabError):
        load_config(str(TINY), [f"{key}={text}"])


@settings(EVERY_TIME, max_examples=500)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD_VALUES), min_size=1, max_size=3))
def test_trees(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    tree = deepcopy(FULL)
    for (*parents, last), value in changes:
        node: Any = tree
        with suppress(KeyError, IndexError, TypeError):  # another change took the place away
            for key in parents:
                node = node[key]
            node[last] = value
    with suppress(FacelabError):
        make_config(tree, "test")


@EVERY_TIME
@given(st.dictionaries(st.sampled_from([*STUDY, "variants", "base", "columns", "name", "x"]), ODD_VALUES, max_size=3))
def test_studies(changes: dict[str, Any]) -> None:
    with suppress(FacelabError):
        make_study({**STUDY, **changes}, Path("runs"), "test")


@pytest.mark.parametrize("name", shipped_configs())
def test_what_is_shipped_is_within_the_limits(name: str) -> None:
    assert load_tree(name)
