"""YAML -> checked, frozen settings: ``extends``, dotted overrides, pydantic models, errors that say what would work."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from facelab.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)
Tree = dict[str, Any]


class Strict(BaseModel):
    """Base of every settings model: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` that reads ``1e-3`` as a number and refuses a key that stands twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Checked before ``<<`` merges another mapping in, whose keys may stand here again: they win.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", node.start_mark)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\.\d[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text.

    Raises:
        ConfigError: If the text is not plain YAML; the message has ``where`` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{where}, line {line}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid YAML: {str(error).splitlines()[0]}.") from None


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file.

    Raises:
        ConfigError: If the file is missing, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the configuration '{path}': {reason}.") from None
    tree = parse_yaml(text, f"'{path}'")
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"'{path}' must hold `key: value` lines, got {type(tree).__name__}.")
    return tree


def merge(base: Mapping[str, Any], top: Mapping[str, Any], specs: Iterable[str] = (), path: str = "") -> Tree:
    """``base`` with the values of ``top`` laid over it, key by key.

    Where a dotted path matches ``specs`` (``*`` stands for any one key), the value names one registered thing
    (``ArcFace`` or ``{ArcFace: {margin: 0.4}}``): another name replaces the old one, the same name merges the options.
    """
    merged = dict(base)
    for key, value in top.items():
        here = f"{path}.{key}" if path else key
        old = merged.get(key)
        if isinstance(value, Mapping):
            if isinstance(old, str):
                old = {old: {}}
            same = not _matches(here, specs) or (isinstance(old, Mapping) and set(old) == set(value))
            if isinstance(old, Mapping) and same:
                value = merge(old, value, specs, here)
        elif isinstance(value, str) and isinstance(old, Mapping) and set(old) == {value} and _matches(here, specs):
            value = old  # naming what is chosen already keeps its options
        merged[key] = value
    return merged


def _matches(path: str, specs: Iterable[str]) -> bool:
    keys = path.split(".")
    return any(
        len(parts) == len(keys) and all(part in ("*", key) for part, key in zip(parts, keys, strict=True))
        for parts in (spec.split(".") for spec in specs)
    )


def read_config(path: Path, specs: Iterable[str] = (), find: Mapping[str, Path] | None = None) -> Tree:
    """A configuration file with everything that it ``extends`` below it.

    Args:
        path: The YAML file. ``extends: other.yaml`` (a path relative to this file, or a name in ``find``) or a list of
            them.
        specs: See `merge`.
        find: Shipped configurations by name.

    Raises:
        ConfigError: If a file is missing or unreadable, or extends itself.
    """
    return _read(path, specs, find or {}, ())


def _read(path: Path, specs: Iterable[str], find: Mapping[str, Path], above: tuple[Path, ...]) -> Tree:
    here = path.resolve()
    if here in above:
        raise ConfigError(f"'{path}' extends itself: {' -> '.join(p.name for p in (*above, here))}.")
    tree = read_yaml(path)
    parents = tree.pop("extends", [])
    merged: Tree = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        target = find.get(parent) or here.parent / parent
        if not target.is_file():
            raise ConfigError(
                f"'{path}' extends '{parent}', which is neither a file beside it nor one of: "
                f"{', '.join(sorted(find)) or 'none'}."
            )
        merged = merge(merged, _read(target, specs, find, (*above, here)), specs)
    return merge(merged, tree, specs)


def parse_overrides(overrides: Sequence[str]) -> Tree:
    """``["optimizer.lr=0.1", "head=CosFace"]`` as a tree; values are read as YAML.

    Raises:
        ConfigError: If one is not of the form ``key=value`` or ``a.b=value``.
    """
    tree: Tree = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ConfigError(f"'{override}' is not an override; write key=value, for example optimizer.lr=0.05.")
        value = parse_yaml(text, f"the override '{override}'")
        *parents, last = key.strip().lstrip("-").split(".")
        for part in reversed([*parents, last]):
            value = {part: value}
        tree = merge(tree, value)
    return tree


def validate(model: type[Model], tree: Mapping[str, Any], where: str) -> Model:
    """Check a tree against a pydantic model.

    Raises:
        ConfigError: With the dotted path, what was given and what would work.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(model, error)}") from None


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    path = ".".join(location)
    if first["type"] == "extra_forbidden":
        fields = _fields_at(model, location[:-1])
        listed = f" Known: {', '.join(fields)}." if fields else ""
        return f"unknown key '{path}'.{did_you_mean(location[-1], fields)}{listed}"
    if first["type"] == "missing":
        return f"'{path}' is missing."
    message = first["msg"].removeprefix("Value error, ")
    return f"'{path}' is {first['input']!r}: {message.rstrip('.')}." if path else f"{message.rstrip('.')}."


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    for key in location:
        field = model.model_fields.get(key)
        annotation = field.annotation if field else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        inner = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Lines ``a.b: 1 -> 2`` for every leaf in which two trees differ."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        here = f"{path}.{key}" if path else key
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differences(left, right, here)
        elif left != right:
            lines.append(f"{here}: {left!r} -> {right!r}")
    return lines
