"""Which part may import which, read from the syntax tree; nothing is imported here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("facelab", "backbone", "head", "iqa", "data", "adapter", "test_protocol", "training_mode")
MODULES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))

LEAVES = tuple(
    f"facelab.{name}"
    for name in ("registry", "config", "errors", "distributed", "citation", "inputs", "outside_file", "outside_yaml")
)
CORE = tuple(f"facelab.{path.stem}" for path in (ROOT / "facelab").glob("*.py"))
COMPOSERS = tuple(
    f"facelab.{name}" for name in ("__init__", "__main__", "cli", "create", "face_model", "face_model_images")
)

# What each part may import beside itself and the core. The core itself imports only the core.
SEES: dict[str, tuple[str, ...]] = {
    "facelab.backbone": (),
    "facelab.head": (),
    "facelab.iqa": (),
    "facelab.data": (),
    "facelab.adapter": ("facelab.backbone.base",),
    "facelab.metrics": ("facelab.test_protocol",),  # what users call by that name
    "facelab.test_protocol": ("facelab.data", "facelab.backbone.base"),
    "facelab.training_mode": tuple(f"facelab.{part}" for part in PARTS[1:]),
}


def module_name(path: Path) -> str:
    """``head/base.py`` -> ``facelab.head.base``; packages keep their ``__init__``."""
    words = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(words if words[0] == "facelab" else ("facelab", *words))


def statements(tree: ast.Module, *, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run, so without those for type checkers."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))


def imported(path: Path, *, inside_functions: bool = True) -> set[str]:
    """Names of our modules that a module imports; ``from facelab.head import base`` counts as ``facelab.head.base``."""
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text()), inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module and (node.module in ("facelab", *SEES)):
            found |= {f"{node.module}.{alias.name}" for alias in node.names if is_module(node.module, alias.name)}
            found.add(node.module)
        elif node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] == "facelab"}


def is_module(package: str, name: str) -> bool:
    """Whether ``from package import name`` imports a module."""
    folder = ROOT.joinpath(*package.split(".")[1:]) if package != "facelab" else ROOT / "facelab"
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir() or (package == "facelab" and name in PARTS)


def within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def is_composer(name: str) -> bool:
    return name in COMPOSERS or name.startswith("facelab.cli_")


def refused(path: Path) -> set[str]:
    """Imports of a module that its place in the house does not allow."""
    name = module_name(path)
    part = ".".join(name.split(".")[:2])
    if is_composer(name):  # they may import everything, but inside functions
        names = imported(path, inside_functions=False)
        return {used for used in names if used != "facelab" and not within(used, CORE)}
    if part in SEES:
        allowed = (part, *CORE, *SEES[part])
        composer = {used for used in imported(path) if is_composer(used) and used != "facelab.model.face_model"}
        return composer | {used for used in imported(path) if used != "facelab" and not within(used, allowed)}
    if name in LEAVES:
        return {used for used in imported(path) if not within(used, LEAVES)}
    return {used for used in imported(path) if used != "facelab" and (is_composer(used) or not within(used, CORE))}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    assert refused(path) == set()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_are_absolute_and_nothing_is_printed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in statements(tree, inside_functions=True):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        wrong = [name for name in names if name.split(".")[0] in PARTS[1:]]
        assert not wrong, f"line {node.lineno}: import facelab.{wrong[0]}"
        assert isinstance(node, ast.Import) or not node.level, f"line {node.lineno}: import absolutely"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]


def test_every_folder_with_modules_is_a_package() -> None:
    assert {path.parent for path in MODULES if not (path.parent / "__init__.py").is_file()} == set()


def test_no_module_lies_in_the_root() -> None:
    assert list(ROOT.glob("*.py")) == []


def test_packages_refuse_another_name() -> None:
    """Else ``import head`` from the checkout would load every module twice, with two registries."""
    for part in PARTS:
        source = (ROOT / part / "__init__.py").read_text()
        name = "facelab" if part == "facelab" else f"facelab.{part}"
        assert f'if __name__ != "{name}":' in source, f"{part}/__init__.py does not refuse other names"


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("head/new.py", "from facelab.backbone.base import Backbone", "facelab.backbone.base"),
        ("head/new.py", "def f():\n    import facelab.data.formats.images", "facelab.data.formats.images"),
        ("adapter/new.py", "from facelab.backbone.base import Backbone", None),
        ("adapter/new.py", "from facelab.backbone import iresnet", "facelab.backbone"),
        ("test_protocol/new.py", "from facelab.head.base import HEADS", "facelab.head.base"),
        ("facelab/engine/loop.py", "from facelab.training_mode.base import TrainingMode", "facelab.training_mode.base"),
        ("facelab/errors.py", "from facelab.engine.loop import train", "facelab.engine.loop"),
        ("facelab/cli/main.py", "from facelab.run.run import run_training", "facelab.run.run"),
        ("facelab/cli/main.py", "def f():\n    from facelab.run.run import run_training", None),
        ("training_mode/new.py", "from facelab.cli.main import main", "facelab.cli.main"),
        ("training_mode/new.py", "from facelab.head.base import HEADS", None),
    ],
)
def test_this_test_finds_what_it_should(
    module: str, line: str, wrong: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / module
    path.parent.mkdir()
    path.write_text(line)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    found = refused(path)
    assert (wrong in found) if wrong else not found
