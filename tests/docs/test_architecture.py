"""The page on the rooms says what `tests/test_imports.py` enforces."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ARROW = re.compile(r"^    (\w+) --> (\w+)$", re.MULTILINE)
GROUPS = ("core", "ground", "parts")


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rules_of_imports", ROOT / "tests" / "test_imports.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_arrow_is_allowed(rules: ModuleType) -> None:
    arrows = [(one, other) for one, other in ARROW.findall(PAGE) if not {one, other} & {*GROUPS, "cli"}]
    assert len(arrows) > 8
    for one, other in arrows:
        allowed = rules.SEES[f"facelab.{one}"]
        assert any(room.startswith(f"facelab.{other}") for room in allowed), f"{one} --> {other}"


def test_every_room_is_on_the_page(rules: ModuleType) -> None:
    rooms = [room.split(".")[1] for room in rules.SEES]
    assert [room for room in rooms if f"{room}[" not in PAGE and f"facelab.{room}" not in PAGE] == []


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*)/(?:NAME|`)", PAGE))))
def test_places_for_new_things_are_there(place: str) -> None:
    assert (ROOT / place).is_dir()
