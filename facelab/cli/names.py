"""The names that the command line takes, for its lists and for shell completion, which imports none of our modules."""

import ast
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import typer

REGISTRIES = {
    "heads": ("facelab.head.base", "HEADS"),
    "classifiers": ("facelab.head.classifier", "CLASSIFIERS"),
    "sample_weights": ("facelab.head.sample_weight", "SAMPLE_WEIGHTS"),
    "backbones": ("facelab.backbone.base", "BACKBONES"),
    "adapters": ("facelab.adapter.base", "ADAPTERS"),
    "gates": ("facelab.adapter.gate", "GATES"),
    "sources": ("facelab.data.base", "SOURCES"),
    "samplers": ("facelab.data.base", "SAMPLERS"),
    "transforms": ("facelab.data.transforms.base", "TRANSFORMS"),
    "detectors": ("facelab.data.detection.base", "DETECTORS"),
    "modes": ("facelab.training_mode.base", "MODES"),
    "objectives": ("facelab.training_mode.triplet.objective", "OBJECTIVES"),
    "distillations": ("facelab.training_mode.distillation.loss", "DISTILLATIONS"),
    "protocols": ("facelab.test_protocol.base", "PROTOCOLS"),
    "scorers": ("facelab.iqa.base", "SCORERS"),
    "callbacks": ("facelab.run.callbacks", "CALLBACKS"),
}
CONFIGS = "configs"
SETTINGS = {
    "mode": "modes",
    "backbone": "backbones",
    "adapter": "adapters",
    "gate": "gates",
    "head": "heads",
    "classifier": "classifiers",
    "sample_weight": "sample_weights",
    "callbacks": "callbacks",
    "data.source": "sources",
    "data.sampler": "samplers",
}
"""Settings of a run whose value is one name, and the kind of that name."""
KEYS = {"data.augment.": "transforms"}
"""Beginnings of settings that go on with a name, and the kind of that name."""


def names_of(kind: str) -> list[str]:
    """Everything of a kind that this project registers or its catalogue adds, sorted; plugins are not looked at.

    Args:
        kind: A key of `REGISTRIES`, or ``configs``.
    """
    if kind == CONFIGS:
        from facelab.run.shipped import shipped_configs

        return sorted(shipped_configs())
    from facelab.catalogue import catalogue_names

    module, registry = REGISTRIES[kind]
    package = find_spec(".".join(module.split(".")[:2]))
    folders = package.submodule_search_locations if package else None
    modules = [path for folder in folders or () for path in Path(folder).rglob("*.py")]
    registered = (name for path in modules for name in _registered(path, registry))
    return sorted({*registered, *catalogue_names(kind.removesuffix("s"))})


def _registered(path: Path, registry: str) -> Iterator[str]:
    """Names in the decorators ``@REGISTRY.register("name")`` of a module."""
    text = path.read_text(encoding="utf-8")
    if f"@{registry}.register" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        for call in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{registry}.register":
                yield ast.literal_eval(call.args[0])


def complete_names(*kinds: str) -> Callable[[str], list[str]]:
    """Completes names of some kinds."""
    return lambda incomplete: _beginning(incomplete, (name for kind in kinds for name in names_of(kind)))


def complete_words(*words: str) -> Callable[[str], list[str]]:
    """Completes words."""
    return lambda incomplete: _beginning(incomplete, words)


def config_or_setting(context: typer.Context, incomplete: str) -> list[str]:
    """Completes the words of ``facelab train`` and ``show``: a configuration, or a name in a setting (``head=``)."""
    for front, kind in KEYS.items():
        if incomplete.startswith(front):
            return _beginning(incomplete, (f"{front}{name}" for name in names_of(kind)))
    key, equals, begun = incomplete.partition("=")
    if equals:
        return [f"{key}={name}" for name in _beginning(begun, _names_for(key))]
    before = [word for words in context.params.values() if isinstance(words, list) for word in words]
    while before and before[-1] == "=":  # bash hands `head=Arc` over as three words
        before.pop()
    return _beginning(incomplete, _names_for(before[-1]) if before else names_of(CONFIGS))


def protocol(incomplete: str) -> list[str]:
    """Completes the words of ``facelab test``: a protocol, whose option follows."""
    return [f"{name}." for name in _beginning(incomplete, names_of("protocols"))]


def _names_for(setting: str) -> list[str]:
    return names_of(SETTINGS[setting]) if setting in SETTINGS else []


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
