from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from facelab.config import Strict, differences, merge, parse_overrides, read_config, validate
from facelab.errors import ConfigError
from facelab.outside.yaml import read_yaml


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


def test_extending_null_is_extending_nothing(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "a.yaml", "extends: null\nepochs: 2")) == {"epochs": 2}


@pytest.mark.parametrize("given", ["5", "{a: b}", "[null]", "[5]", "['']", "true"])
def test_extending_what_is_no_name_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="'extends' is .*, but must name a configuration or a list of them"):
        read_config(write(tmp_path, "a.yaml", f"extends: {given}"))


@pytest.mark.parametrize("given", ["x" * 5000, ".", "/dev/zero"])
def test_extending_no_file_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="which is neither a file beside it nor one of: none"):
        read_config(write(tmp_path, "a.yaml", f"extends: {given}"))


def test_files_that_are_extended_often_are_read_once(tmp_path: Path) -> None:
    """Else this would read 2 ** 40 files."""
    write(tmp_path, "40.yaml", "epochs: 3")
    for number in range(40):
        write(tmp_path, f"{number}.yaml", f"extends: [{number + 1}.yaml, {number + 1}.yaml]")
    assert read_config(tmp_path / "0.yaml") == {"epochs": 3}


def test_a_long_chain_is_refused(tmp_path: Path) -> None:
    for number in range(100):
        write(tmp_path, f"{number}.yaml", f"extends: {number + 1}.yaml")
    with pytest.raises(ConfigError, match="is extended over more than 64 files"):
        read_config(tmp_path / "0.yaml")


def test_an_override_that_is_too_deep_is_refused() -> None:
    with pytest.raises(ConfigError, match="is nested more than 64 deep"):
        parse_overrides([".".join("a" * 5000) + "=1"])


class Numbers(Strict):
    seed: int = Field(default=0, ge=0)
    rate: float = 0.1
    flag: bool = False
    size: int | tuple[int, int] = 112
    more: dict[str, Any] = Field(default_factory=dict)
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"seed": 2**64}, "run.yaml: 'seed' is a whole number that 64 bits cannot hold."),
        ({"seed": -(2**63) - 1}, "'seed' is a whole number that 64 bits cannot hold."),
        ({"seed": 10**4000}, "'seed' is a whole number that 64 bits cannot hold"),
        ({"seed": "9" * 30}, "'seed' is a whole number that 64 bits cannot hold"),
        ({"seed": -1}, "'seed' is -1: Input should be greater than or equal to 0."),
        ({"seed": True}, "'seed' is true, but must be a number."),
        ({"rate": False}, "'rate' is false, but must be a number."),
        ({"rate": float("nan")}, "'rate' is nan, but must be a finite number."),
        ({"rate": "nan"}, "'rate' is 'nan': Input should be a finite number."),
        ({"rate": float("inf")}, "'rate' is inf, but must be a finite number."),
        ({"inner": {"lr": float("-inf")}}, "'inner.lr' is -inf, but must be a finite number."),
        ({"size": [112, True]}, "'size.1' is true, but must be a number."),
        ({"size": [112, "x"]}, "'size.1' is 'x': Input should be a valid integer"),
        ({"more": {"a": [{"b": 2**70}]}}, "'more.a.0.b' is a whole number that 64 bits cannot hold"),
        (
            {"inner": {"lr": {"x": "y" * 1000}}},
            r"inner.lr.*yyy.*\.\.\..*yyy'\}: Input should be a valid number",
        ),
    ],
)
def test_numbers_that_nothing_can_use_are_refused_by_their_path(tree: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        validate(Numbers, tree, "run.yaml")
    assert len(str(caught.value)) < 400


def test_numbers_that_can_be_used() -> None:
    given = {"seed": 2**63 - 1, "rate": 3, "flag": True, "size": [1, 2], "more": {"x": True}}
    checked = validate(Numbers, given, "run.yaml")
    assert (checked.seed, checked.rate, checked.flag, checked.size) == (2**63 - 1, 3.0, True, (1, 2))
    assert checked.more == {"x": True}
