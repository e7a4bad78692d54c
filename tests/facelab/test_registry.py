import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facelab.catalogue import resolve
from facelab.cli.show import REGISTRIES, registry_of
from facelab.errors import ConfigError
from facelab.head.base import HEADS
from facelab.head.classifier import CLASSIFIERS
from facelab.registry import ALL_REGISTRIES, Registry
from facelab.training_mode.distillation.loss import DISTILLATIONS
from facelab.training_mode.triplet.objective import OBJECTIVES


class Thing:
    def __init__(self, margin: float = 0.5, classes: int = 3, names: tuple[str, ...] = ()) -> None:
        self.margin = margin
        self.classes = classes
        self.names = names


class Needy:
    def __init__(self, root: str) -> None:
        self.root = root


@pytest.fixture
def things() -> Iterator[Registry[object]]:
    package = types.ModuleType("empty_package")
    package.__path__ = []
    sys.modules["empty_package"] = package
    registry: Registry[object] = Registry("thing", "empty_package")
    registry.register("Thing")(Thing)
    registry.register("Needy")(Needy)
    yield registry
    del sys.modules["empty_package"], ALL_REGISTRIES["thing"]


def test_builds_from_options_and_converts_them(things: Registry[object]) -> None:
    thing = things.build("Thing", {"margin": 1, "names": ["a"]})
    assert isinstance(thing, Thing)
    assert (thing.margin, thing.names) == (1.0, ("a",))


def test_what_the_program_supplies_is_not_offered_as_an_option(things: Registry[object]) -> None:
    other: Registry[object] = Registry("thing", "empty_package", supplied=("root",))
    other.register("Needy")(Needy)
    assert set(things.options("Needy")) == {"root"}
    assert not other.options("Needy")
    with pytest.raises(ConfigError, match=r"thing 'Needy' has no option 'rot'\. Options: none\.$"):
        other.build("Needy", {"rot": 1}, root="a")


@pytest.mark.parametrize("registry", [HEADS, CLASSIFIERS, OBJECTIVES, DISTILLATIONS], ids=lambda one: one.kind)
def test_what_follows_from_data_and_network_is_not_offered(registry: Registry[Any]) -> None:
    offered = {option for name in registry.names() for option in registry.options(name)}
    assert offered.isdisjoint({"num_classes", "feat_dim", "head", "student", "teacher", "rows"})


def test_an_old_name_works_unlisted_and_is_said_once(
    things: Registry[object], caplog: pytest.LogCaptureFixture
) -> None:
    things.register("Renamed", old={"Former": "0.3"})(Needy)
    assert "Former" in things
    assert things.names() == ["Needy", "Renamed", "Thing"]
    assert isinstance(things.build("Former", {"root": "a"}), Needy)
    assert resolve(things, {"Former": {"root": "a"}}) == ("Renamed", {"root": "a"})
    assert caplog.messages == ["thing 'Former' is called 'Renamed' now; the old name works until version 0.3."]


def test_a_new_entry_may_take_an_old_name(things: Registry[object], caplog: pytest.LogCaptureFixture) -> None:
    things.register("Renamed", old={"Former": "0.3"})(Needy)
    things.register("Former")(Thing)
    assert isinstance(things.build("Former"), Thing)
    assert not caplog.messages


def test_supplies_only_what_the_constructor_takes(things: Registry[object]) -> None:
    thing = things.build("Thing", {}, classes=7, unheard_of=1)
    assert isinstance(thing, Thing)
    assert thing.classes == 7


def test_a_given_value_must_agree_with_the_supplied_one(things: Registry[object]) -> None:
    assert things.build("Thing", {"classes": 7}, classes=7)
    with pytest.raises(ConfigError, match="option 'classes' is 8, but 7 follows from the rest"):
        things.build("Thing", {"classes": 8}, classes=7)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("thing", {}, "unknown thing 'thing'. Did you mean 'Thing'\\? Known: Needy, Thing."),
        (
            "Thing",
            {"marginarc": 1},
            "thing 'Thing' has no option 'marginarc'. Did you mean 'margin'\\? Options: margin",
        ),
        ("Thing", {"margin": "wide"}, "thing 'Thing' option 'margin' is 'wide': Input should be a valid number"),
        ("Needy", {}, "thing 'Needy' needs the option 'root'"),
    ],
)
def test_refusals_say_what_would_work(
    things: Registry[object], name: str, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        things.build(name, options)


def test_a_taken_name_names_its_owner(things: Registry[object]) -> None:
    with pytest.raises(ConfigError, match="thing 'Thing' is already registered by .*Thing; .*Needy needs another name"):
        things.register("Thing")(Needy)


def test_the_same_class_may_register_again(things: Registry[object]) -> None:
    things.register("Thing")(Thing)
    assert things.get("Thing") is Thing


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_entry_is_documented_and_its_options_are_typed(kind: str) -> None:
    registry = registry_of(kind)
    assert registry.names() or kind == "callbacks", "there is none of ours"
    for name in registry.names():
        assert registry.get(name).__doc__, f"{kind} {name}"
        assert all(parameter.annotation is not Any for parameter in registry.parameters(name).values())


@pytest.mark.parametrize("text", ["import no_such_module", "def broken(:"])
def test_an_entry_point_that_cannot_be_imported_is_named(
    text: str, things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_things.py").write_text(text)
    monkeypatch.delitem(sys.modules, "broken_things", raising=False)
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[facelab.things]\nbroken = broken_things\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match="cannot import 'broken_things', which the package 'broken' names as an entry"
    ):
        things.names()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"classes": True}, "thing 'Thing' option 'classes' is true, but must be a number."),
        ({"classes": 2**64}, "thing 'Thing' option 'classes' is a whole number that 64 bits cannot hold."),
        ({"margin": float("nan")}, "thing 'Thing' option 'margin' is nan, but must be a finite number."),
        ({"margin": "inf"}, "thing 'Thing' option 'margin' is 'inf': Input should be a finite number."),
        ({"names": ["a", 1]}, "thing 'Thing' option 'names.1' is 1: Input should be a valid string."),
    ],
)
def test_odd_numbers_are_refused_by_their_path(
    things: Registry[object], options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        things.build("Thing", options)


def test_a_registry_that_could_not_be_filled_says_so_each_time(
    things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("import nothing_of_that_name\n")
    monkeypatch.setattr(sys.modules["empty_package"], "__path__", [str(tmp_path)])
    for _ in range(2):
        with pytest.raises(ImportError, match="nothing_of_that_name"):
            things.names()
