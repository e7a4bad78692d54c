from pathlib import Path

import pytest
from pydantic import Field

from facelab.config import Strict, differences, merge, parse_overrides, read_config, read_yaml, validate
from facelab.errors import ConfigError


class Inner(Strict):
    lr: float = Field(default=0.1, gt=0)


class Outer(Strict):
    optimizer: Inner = Inner()
    epochs: int = 1


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("5e4", 5e4), ("1.5E+3", 1500.0), (".5", 0.5), ("-2e-1", -0.2)]
)
def test_exponents_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    assert read_yaml(write(tmp_path, "a.yaml", f"x: {text}"))["x"] == value


@pytest.mark.parametrize("text", ["1e", "e3", "1.2.3", "v1e-3"])
def test_other_strings_stay_strings(tmp_path: Path, text: str) -> None:
    assert read_yaml(write(tmp_path, "a.yaml", f"x: {text}"))["x"] == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\na: 2", "line 2: key 'a' stands twice|line 1: key 'a' stands twice"),
        ("a: [1", "line"),
        ("- 1", "must hold `key: value` lines"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_bad_yaml_is_answered_with_file_and_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_yaml(write(tmp_path, "bad.yaml", text))
    assert "bad.yaml" in str(caught.value)


def test_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration 'nowhere.yaml': No such file"):
        read_yaml(Path("nowhere.yaml"))


def test_extends_lays_the_child_over_its_parents(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "optimizer: {lr: 0.1, momentum: 0.9}\nhead: ArcFace")
    child = write(tmp_path, "child.yaml", "extends: base.yaml\noptimizer: {lr: 0.2}")
    assert read_config(child) == {"optimizer": {"lr": 0.2, "momentum": 0.9}, "head": "ArcFace"}


def test_extends_finds_shipped_names(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", "epochs: 3")
    child = write(tmp_path, "child.yaml", "extends: shipped")
    assert read_config(child, find={"shipped": base}) == {"epochs": 3}


def test_extending_oneself_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml")
    write(tmp_path, "b.yaml", "extends: a.yaml")
    with pytest.raises(ConfigError, match=r"extends itself: a.yaml -> b.yaml -> a.yaml"):
        read_config(tmp_path / "a.yaml")


def test_extending_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extends 'lost.yaml', which is neither a file beside it nor one of: shipped"):
        read_config(write(tmp_path, "a.yaml", "extends: lost.yaml"), find={"shipped": Path("x")})


def test_another_name_at_a_spec_replaces_the_options() -> None:
    base = {"head": {"MagFace": {"l_a": 10}}, "data": {"source": {"ImageList": {"root": "x"}}}}
    assert merge(base, {"head": {"ArcFace": {"margin": 0.4}}}, ["head"])["head"] == {"ArcFace": {"margin": 0.4}}
    assert merge(base, {"head": {"MagFace": {"u_a": 90}}}, ["head"])["head"] == {"MagFace": {"l_a": 10, "u_a": 90}}
    assert merge(base, {"head": "MagFace"}, ["head"])["head"] == {"MagFace": {"l_a": 10}}
    assert merge(base, {"head": "CosFace"}, ["head"])["head"] == "CosFace"


def test_options_can_be_added_to_a_bare_name() -> None:
    assert merge({"head": "ArcFace"}, {"head": {"ArcFace": {"margin": 0.4}}}, ["head"]) == {
        "head": {"ArcFace": {"margin": 0.4}}
    }


def test_a_star_stands_for_any_key() -> None:
    base = {"protocols": {"lfw": {"LFW": {"root": "a"}}}}
    top = {"protocols": {"lfw": {"BinPack": {"path": "b"}}}}
    assert merge(base, top, ["protocols.*"]) == top


def test_overrides_are_read_as_yaml() -> None:
    tree = parse_overrides(["optimizer.lr=1e-3", "optimizer.nesterov=true", "schedule.milestones=[10, 13]", "--name=a"])
    assert tree == {"optimizer": {"lr": 1e-3, "nesterov": True}, "schedule": {"milestones": [10, 13]}, "name": "a"}


@pytest.mark.parametrize("override", ["lr", "=3", "a..b=1"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="is not an override; write key=value"):
        parse_overrides([override])


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"epoch": 3}, "run.yaml: unknown key 'epoch'. Did you mean 'epochs'\\? Known: optimizer, epochs."),
        ({"optimizer": {"Lr": 1}}, "unknown key 'optimizer.Lr'. Did you mean 'lr'\\? Known: lr."),
        ({"optimizer": {"lr": -1}}, "'optimizer.lr' is -1: Input should be greater than 0."),
        ({"epochs": "many"}, "'epochs' is 'many': Input should be a valid integer"),
    ],
)
def test_refusals_name_path_value_and_remedy(tree: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        validate(Outer, tree, "run.yaml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        validate(Outer, {}, "x").epochs = 2


def test_differences_are_listed_by_path() -> None:
    old = {"a": {"b": 1, "c": 2}, "d": 3}
    assert differences(old, {"a": {"b": 1, "c": 5}, "e": 1}) == ["a.c: 2 -> 5", "d: 3 -> None", "e: None -> 1"]
