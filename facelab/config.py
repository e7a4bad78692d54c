"""YAML -> checked, frozen settings: ``extends``, dotted overrides, pydantic models, errors that say what would work."""

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from facelab.errors import ConfigError, did_you_mean
from facelab.outside.file import is_file
from facelab.outside.yaml import MAX_DEPTH, parse_yaml, read_yaml

Model = TypeVar("Model", bound=BaseModel)
Tree = dict[str, Any]

WHOLE = range(-(1 << 63), 1 << 63)
"""Whole numbers that settings may have: those of 64 bits, as every library below can take them."""

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 200
shown = _shorten.repr
"""A given value as messages show it, cut short where it is long."""


class Strict(BaseModel):
    """Base of every settings model: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


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
    return _read(path, specs, find or {}, (), {})


def _read(
    path: Path, specs: Iterable[str], find: Mapping[str, Path], above: tuple[Path, ...], known: dict[Path, Tree]
) -> Tree:
    """One file over what it extends; ``known`` has those that are merged already, as many may extend the same."""
    here = path.resolve()
    if here in above:
        raise ConfigError(f"'{path}' extends itself: {' -> '.join(p.name for p in (*above, here))}.")
    if len(above) >= MAX_DEPTH:
        raise ConfigError(f"'{path}' is extended over more than {MAX_DEPTH} files.")
    if here not in known:
        tree = read_yaml(path)
        merged: Tree = {}
        for parent in _parents(path, tree.pop("extends", None)):
            target = find.get(parent) or here.parent / parent
            if not is_file(target):
                raise ConfigError(
                    f"'{path}' extends '{parent}', which is neither a file beside it nor one of: "
                    f"{', '.join(sorted(find)) or 'none'}."
                )
            merged = merge(merged, _read(target, specs, find, (*above, here), known), specs)
        known[here] = merge(merged, tree, specs)
    return known[here]


def _parents(path: Path, extends: Any) -> list[str]:
    """What a file extends, in order; null is nothing."""
    parents = [extends] if isinstance(extends, str) else extends or []
    if not isinstance(parents, list) or not all(isinstance(parent, str) and parent for parent in parents):
        raise ConfigError(f"'{path}': 'extends' is {shown(extends)}, but must name a configuration or a list of them.")
    return parents


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
        # Who writes --optimizer.lr=0.1 means it too.
        parts = key.strip().lstrip("-").split(".")
        if len(parts) > MAX_DEPTH:
            raise ConfigError(f"the override '{key[:80]}…' is nested more than {MAX_DEPTH} deep.")
        for part in reversed(parts):
            value = {part: value}
        tree = merge(tree, value)
    return tree


def validate(model: type[Model], tree: Mapping[str, Any], where: str, *, settings: bool = True) -> Model:
    """Check a tree against a pydantic model.

    Args:
        model: The model.
        tree: Plain values.
        where: Names the file in messages.
        settings: Whether numbers must be such as settings may have; results may be infinite.

    Raises:
        ConfigError: With the dotted path, what was given and what would work.
    """
    try:
        if settings:
            check_numbers(tree)
        checked = model.model_validate(dict(tree))
        if settings:
            check_converted(tree, checked)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(model, tree, error)}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from None
    return checked


def check_numbers(value: Any, path: str = "") -> None:
    """Refuse numbers that nothing can use, wherever they stand in a tree.

    Args:
        value: A value as read from YAML, or a tree of them.
        path: Where it stands, dotted.

    Raises:
        ValueError: If a number is not finite, or a whole number has more than 64 bits.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"'{path}' is {value}, but must be a finite number")
    if isinstance(value, int) and value not in WHOLE:
        raise ValueError(f"'{path}' is a whole number that 64 bits cannot hold")
    for key, inside in _children(value):
        check_numbers(inside, f"{path}.{key}" if path else str(key))


def check_converted(given: Any, checked: Any, path: str = "") -> None:
    """Refuse what a check let pass as a number although it was something else.

    Args:
        given: A value as read from YAML, or a tree of them.
        checked: The same after conversion to the declared types.
        path: Where it stands, dotted.

    Raises:
        ValueError: If ``true`` or ``false`` became a number, or a text became one that nothing can use.
    """
    if isinstance(given, bool | str) and isinstance(checked, int | float) and not isinstance(checked, bool):
        if isinstance(given, bool):
            raise ValueError(f"'{path}' is {str(given).lower()}, but must be a number")
        check_numbers(checked, path)
    for key, inside in _children(given):
        if isinstance(checked, Mapping):
            became = checked.get(key)
        elif isinstance(checked, Sequence) and isinstance(key, int) and not isinstance(checked, str):
            became = checked[key] if key < len(checked) else None
        else:
            became = getattr(checked, str(key), None)
        check_converted(inside, became, f"{path}.{key}" if path else str(key))


def _children(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


def _explain(model: type[BaseModel], tree: Mapping[str, Any], error: ValidationError) -> str:
    first, path = first_error(tree, error)
    location = path.split(".")
    if first["type"] == "extra_forbidden":
        fields = _fields_at(model, location[:-1])
        listed = f" Known: {', '.join(fields)}." if fields else ""
        return f"unknown key '{path}'.{did_you_mean(location[-1], fields)}{listed}"
    if first["type"] == "missing":
        return f"'{path}' is missing."
    message = first["msg"].removeprefix("Value error, ")
    return f"'{path}' is {shown(first['input'])}: {message.rstrip('.')}." if path else f"{message.rstrip('.')}."


def first_error(given: Any, error: ValidationError) -> tuple[ErrorDetails, str]:
    """The first error and its place in what was given, dotted.

    Where several types are allowed there is an error for each; it is that of the type which fits deepest.
    """
    places = [(details, _place(given, details)) for details in error.errors()]
    first = places[0][1]
    same = [found for found in places if found[1][: len(first)] == first]
    details, place = max(same, key=lambda found: len(found[1]))
    return details, ".".join(place)


def _place(given: Any, details: ErrorDetails) -> list[str]:
    """Pydantic adds the types that it tried, which are left out here."""
    place: list[str] = []
    for part in details["loc"]:
        try:
            given = given[part]
        except (KeyError, IndexError, TypeError):
            continue
        place.append(str(part))
    if details["type"] == "missing":
        place.append(str(details["loc"][-1]))
    return place


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
