"""The catalogues (``backbone_conf.yaml``, ``head_conf.yaml`` …): published names -> class and options."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from facelab.citation import Citation
from facelab.config import merge
from facelab.errors import ConfigError, did_you_mean
from facelab.outside.yaml import read_yaml
from facelab.registry import Registry

T = TypeVar("T")

Spec = str | dict[str, dict[str, Any] | None]
"""How a configuration names one registered thing: ``ArcFace`` or ``{ArcFace: {margin: 0.4}}``."""


def catalogue_file(kind: str) -> Path | None:
    """The catalogue of a kind: in the installed package, else in the checkout; None if the kind has none."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent):
        path = folder / f"{kind}_conf.yaml"
        if path.is_file():
            return path
    return None


def catalogue_names(kind: str) -> list[str]:
    """The names of a kind's catalogue entries, without looking at what they mean."""
    path = catalogue_file(kind)
    return [] if path is None else list(_read_entries(path))


@cache
def _read_entries(path: Path) -> dict[str, Any]:
    return read_yaml(path)


def entries(registry: Registry[Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every catalogue entry of a registry's kind: name -> (registered name, options).

    Raises:
        ConfigError: If an entry names something that is not registered.
    """
    path = catalogue_file(registry.kind)
    if path is None:
        return {}
    return {name: _read_entry(registry, path, name, value or {}) for name, value in _read_entries(path).items()}


def _read_entry(registry: Registry[Any], path: Path, name: str, value: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"'{path}': entry '{name}' must be a mapping, got {value!r}.")
    if name in registry:
        return name, dict(value)
    if len(value) != 1:
        raise ConfigError(
            f"'{path}': entry '{name}' must name one registered {registry.kind}, for example {{Name: {{}}}}."
        )
    ((registered, options),) = value.items()
    registry.get(registered)
    return registered, dict(options or {})


def citation_of(registry: Registry[Any], name: str) -> Citation | None:
    """The paper of a registered name or a catalogue entry: the entry's own, if its class names one, else the class's.

    A class has its paper in ``citation``, and those of its catalogue entries in ``entry_citations``.

    Raises:
        ConfigError: If there is no such name.
    """
    known = entries(registry)
    cls = registry.get(known[name][0] if name in known else name)
    own: Mapping[str, Citation] = getattr(cls, "entry_citations", {})
    shared: Citation | None = getattr(cls, "citation", None)
    return own.get(name, shared)


def resolve(registry: Registry[Any], spec: Spec) -> tuple[str, dict[str, Any]]:
    """The registered name and the options that a spec means; inline options win over the catalogue's key by key.

    Raises:
        ConfigError: If the spec is malformed or names nothing known.
    """
    if isinstance(spec, str):
        name, inline = spec, {}
    elif isinstance(spec, Mapping) and len(spec) == 1:
        ((name, given),) = spec.items()
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"the options of {registry.kind} '{name}' must be a mapping, got {given!r}.")
        inline = dict(given or {})
    else:
        raise ConfigError(f"a {registry.kind} is written as Name or {{Name: {{option: value}}}}, got {spec!r}.")
    known = entries(registry)
    if name in known:
        registered, options = known[name]
        return registered, merge(options, inline)
    if name not in registry:
        names = sorted({*registry.names(), *known})
        raise ConfigError(f"unknown {registry.kind} '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}.")
    return registry.present_name(name), inline


def build(registry: Registry[T], spec: Spec, **supplied: Any) -> T:
    """Construct what a spec names. See `Registry.build` for ``supplied`` and the errors."""
    name, options = resolve(registry, spec)
    return registry.build(name, options, **supplied)
