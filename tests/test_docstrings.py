"""Everything public says what it is: modules, classes, functions and methods."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "adapter",
    "backbone",
    "benchmarks",
    "data",
    "facelab",
    "head",
    "iqa",
    "test_protocol",
    "training_mode",
)
BY_THE_CLASS = ("__init__", "__post_init__")  # whose arguments and refusals the docstring of the class describes

Item = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def is_public(item: Item) -> bool:
    """Whether users see it; the alternatives of an overload are described by what follows them."""
    magic = item.name.startswith("__") and item.name.endswith("__") and item.name not in BY_THE_CLASS
    overload = any(isinstance(by, ast.Name) and by.id == "overload" for by in item.decorator_list)
    return (magic or not item.name.startswith("_")) and not overload


def without_docstring(tree: ast.Module | Item, name: str) -> Iterator[str]:
    """Dotted names of what has none, at ``tree`` and below, but not inside of functions."""
    if ast.get_docstring(tree) is None:
        yield name
    if isinstance(tree, ast.Module | ast.ClassDef):
        for inner in tree.body:
            if isinstance(inner, Item) and is_public(inner):
                yield from without_docstring(inner, f"{name}.{inner.name}")


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_public_has_a_docstring(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [
        name
        for path in files
        for name in without_docstring(ast.parse(path.read_text()), str(path.relative_to(ROOT).with_suffix("")))
    ] == []


def test_folders_are_all_of_them() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/*.py") if not path.parent.name.startswith(".")}
    assert packages - {"tests", "examples"} == set(FOLDERS)  # examples are read, not imported


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("x = 1", ["m"]),
        ('"""M."""\ndef f(): pass', ["m.f"]),
        ('"""M."""\ndef _f(): pass', []),
        (
            '"""M."""\nclass A:\n    """A."""\n    def __init__(self): ...\n    def __len__(self): ...',
            ["m.A.__len__"],
        ),
        ('"""M."""\nclass _A:\n    def f(self): pass', []),
        ('"""M."""\ndef f():\n    """F."""\n    def g(): pass', []),
        ('"""M."""\n@overload\ndef f(): ...\ndef f():\n    """F."""', []),
    ],
)
def test_what_is_missing_is_found(text: str, missing: list[str]) -> None:
    assert list(without_docstring(ast.parse(text), "m")) == missing
