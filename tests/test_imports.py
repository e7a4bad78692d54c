"""Which part may import which, read from the syntax tree; nothing is imported here."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("facelab", "backbone", "head", "iqa", "data", "adapter", "test_protocol", "training_mode")
MODULES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))

# Doors for users: they may see everything, but only inside functions, so that opening one is quick.
DOORS = ("facelab.__init__", "facelab.__main__", "facelab.create", "facelab.cli")
LEAVES = tuple(
    f"facelab.{name}" for name in ("registry", "config", "errors", "distributed", "citation", "inputs", "version")
)
CORE = tuple(f"facelab.{path.stem}" for path in (ROOT / "facelab").glob("*.py"))
FILES = ("facelab.outside", "facelab.quality", "facelab.weights")

# What each room may import beside itself and the core. The core itself imports only the core and what reads YAML.
SEES: dict[str, tuple[str, ...]] = {
    "facelab.outside": (),
    "facelab.quality": ("facelab.outside",),
    "facelab.weights": ("facelab.outside", "facelab.quality"),
    "facelab.engine": (),
    "facelab.cost": (),
    "facelab.metrics": ("facelab.test_protocol.metrics",),
    "facelab.triton_kernels": (),
    "facelab.backbone": (*FILES, "facelab.triton_kernels"),
    "facelab.head": FILES,
    "facelab.iqa": FILES,
    "facelab.data": FILES,
    "facelab.adapter": (*FILES, "facelab.backbone.base"),
    "facelab.test_protocol": (*FILES, "facelab.cost", "facelab.data", "facelab.backbone.base"),
    "facelab.model": (
        *FILES, "facelab.adapter", "facelab.backbone", "facelab.data", "facelab.iqa",
        "facelab.test_protocol.base", "facelab.test_protocol.extraction",
    ),
    "facelab.export": (
        *FILES, "facelab.adapter", "facelab.backbone", "facelab.cost", "facelab.data", "facelab.iqa", "facelab.model",
        "facelab.test_protocol.base", "facelab.test_protocol.extraction", "facelab.test_protocol.statistics",
    ),
    "facelab.doctor": (*FILES, "facelab.backbone.base", "facelab.data", "facelab.iqa", "facelab.test_protocol"),
    "facelab.training_mode": (*FILES, "facelab.engine", *(f"facelab.{part}" for part in PARTS[1:-2])),
    "facelab.run": (*FILES, "facelab.engine", "facelab.model", *(f"facelab.{part}" for part in PARTS[1:])),
}  # fmt: skip

# Inside test_protocol a room may import those of lines above its own.
STOREYS = (("base",), ("metrics",), ("statistics",), ("extraction",), ("report",), ("lists", "protocols"), ("run",))


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
        elif node.module and node.module.split(".")[0] == "facelab":
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if is_module(name) else node.module for name in modules}
    return {name for name in found if name.split(".")[0] == "facelab"}


def is_module(name: str) -> bool:
    """Whether ``from package import name`` imports a module: ``facelab.head.base`` is ``head/base.py``."""
    words = name.split(".")
    path = ROOT.joinpath(*(words if words[1] not in PARTS else words[1:]))
    return path.with_suffix(".py").is_file() or path.is_dir()


def within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def storey(name: str) -> int:
    """Which line of `STOREYS` a module of test_protocol stands on."""
    room = name.removeprefix("facelab.test_protocol.").split(".")[0]
    return next(number for number, rooms in enumerate(STOREYS) if room in rooms)


def is_door(name: str) -> bool:
    return within(name, DOORS)


def refused(path: Path) -> set[str]:
    """Imports of a module that its place in the house does not allow."""
    name = module_name(path)
    part = ".".join(name.split(".")[:2])
    used_here = {used for used in imported(path) if used != "facelab"}
    if is_door(name):
        allowed = (*CORE, *FILES, *DOORS)
        return {used for used in imported(path, inside_functions=False) - {"facelab"} if not within(used, allowed)}
    if name in LEAVES:
        return {used for used in used_here if not within(used, (*LEAVES, "facelab.outside"))}
    allowed = (*CORE, *((part, *SEES[part]) if part in SEES else ("facelab.outside",)))
    return {used for used in used_here if is_door(used) or not within(used, allowed) or is_above(used, name)}


def is_above(used: str, name: str) -> bool:
    """Whether one module of test_protocol stands on a higher storey than another."""
    both = [module.startswith("facelab.test_protocol.") and not module.endswith("__init__") for module in (used, name)]
    return all(both) and storey(used) > storey(name)


def circles() -> list[list[str]]:
    """Modules that import each other, one list a circle; imports inside functions count."""
    names = {module_name(path).removesuffix(".__init__"): path for path in MODULES}
    graph = {name: {used for used in imported(path) if used in names and used != name} for name, path in names.items()}
    while graph:
        free = {name for name, used in graph.items() if not used & graph.keys()}
        if not free:
            break
        graph = {name: used for name, used in graph.items() if name not in free}
    return [[name, *sorted(used & graph.keys())] for name, used in graph.items()]


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


def test_no_modules_import_each_other() -> None:
    assert circles() == []


def test_no_room_is_crowded() -> None:
    folders = Counter(path.parent for path in MODULES)
    assert {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > 25} == {}


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
        before = source.partition("if __name__")[0]
        assert "from facelab" not in before, f"{part}/__init__.py imports before it refuses, and fails by another error"


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("head/new.py", "from facelab.backbone.base import Backbone", "facelab.backbone.base"),
        ("head/new.py", "def f():\n    import facelab.data.formats.images", "facelab.data.formats.images"),
        ("adapter/new.py", "from facelab.backbone.base import Backbone", None),
        ("adapter/new.py", "from facelab.backbone import iresnet", "facelab.backbone"),
        ("test_protocol/lists/new.py", "import facelab.test_protocol.run", "facelab.test_protocol.run"),
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
    path.parent.mkdir(parents=True)
    path.write_text(line)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    found = refused(path)
    assert (wrong in found) if wrong else not found
