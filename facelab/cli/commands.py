"""Which commands there are: each module here and in the folders here names its own, other packages by entry points."""

import importlib
import re
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from facelab import cli
from facelab.errors import ConfigError

F = TypeVar("F", bound=Callable[..., None])

ENTRY_POINTS = "facelab.commands"
NAMES_ITS_COMMAND = re.compile(r"^@(\w+\.)?command\(", re.MULTILINE)
OTHERS = "Commands of other packages"

_COMMANDS: list[tuple[int, str, Callable[..., None], type[TyperCommand] | None]] = []
_GROUPS: list[tuple[int, str, typer.Typer]] = []


def command(name: str, *, place: int, cls: type[TyperCommand] | None = None) -> Callable[[F], F]:
    """Decorator that makes a function the command ``facelab NAME``; Typer reads its signature and docstring.

    The module should import only what a signature needs, the rest inside of the function: every command, help and
    completion import it.

    Args:
        name: What the user types.
        place: Where the help shows it: lower ones first.
        cls: How its words are parsed, if not as usual.
    """

    def add(function: F) -> F:
        _COMMANDS.append((place, name, function, cls))
        return function

    return add


def group(name: str, purpose: str, *, place: int) -> typer.Typer:
    """A command of commands, ``facelab NAME …``; modules add to it by ``@GROUP.command("name")``.

    Args:
        name: What the user types.
        purpose: A sentence for the help.
        place: Where the help shows it, behind the single commands.
    """
    app = typer.Typer(name=name, help=purpose, no_args_is_help=True, rich_markup_mode="rich")
    _GROUPS.append((place, name, app))
    return app


def add_commands(app: typer.Typer) -> None:
    """Add all commands, ours in their places, then those of other packages by name.

    Modules of other packages are imported only when their command is called: so that none of them slows down or breaks
    the rest.
    """
    for folder in map(Path, cli.__path__):
        for path in sorted(folder.rglob("*.py")):
            # Helpers of commands may import what is heavy.
            if NAMES_ITS_COMMAND.search(path.read_text(encoding="utf-8")):
                words = path.relative_to(folder).with_suffix("").parts
                importlib.import_module(".".join((cli.__name__, *words)).removesuffix(".__init__"))
    for _, name, function, cls in sorted(_COMMANDS, key=lambda entry: entry[:2]):
        app.command(name, cls=cls)(function)
    for _, name, inner in sorted(_GROUPS, key=lambda entry: entry[:2]):
        app.add_typer(inner, name=name)
    ours = {entry[1] for entry in (*_COMMANDS, *_GROUPS)}
    for name, entries in _of_others().items():
        if name not in ours:
            _add_foreign(app, name, entries)


def _of_others() -> dict[str, list[EntryPoint]]:
    """Entry points by the command's name; several packages may want the same."""
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: (entry.name, entry.value)):
        found[entry.name].append(entry)
    return found


def _add_foreign(app: typer.Typer, name: str, entries: list[EntryPoint]) -> None:
    """A command that hands its words, ``--help`` too, to the function behind it."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

    @app.command(name, help=_purpose(entries[0]), rich_help_panel=OTHERS, context_settings=settings)
    def forward(context: typer.Context) -> None:
        target: Any = typer.main.get_command(_loaded(name, entries))
        with target.make_context(name, context.args, parent=context.parent) as inner:
            target.invoke(inner)


def _purpose(entry: EntryPoint) -> str:
    if entry.dist is None or "Summary" not in entry.dist.metadata:
        return f"Of {_package(entry)}."
    return f"{entry.dist.metadata['Summary'].rstrip('.')} ({_package(entry)})."


def _package(entry: EntryPoint) -> str:
    return f"the package '{entry.dist.name}'" if entry.dist else "an installed package"


def _loaded(name: str, entries: list[EntryPoint]) -> typer.Typer:
    """The Typer application behind an entry point: itself, or one around a function.

    Raises:
        ConfigError: If it cannot be imported, is neither, or several packages have one.
    """
    first, *more = entries
    if more:
        packages = ", ".join(_package(entry) for entry in entries)
        raise ConfigError(f"the command '{name}' comes from several: {packages}; uninstall all but one.")
    try:
        target = first.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f"cannot import '{first.value}', which {_package(first)} names as the command '{name}': {error}. "
            "Mend or uninstall the package."
        ) from error
    if isinstance(target, typer.Typer):
        return target
    if not callable(target):
        raise ConfigError(
            f"'{first.value}', which {_package(first)} names as the command '{name}', is neither a function nor a "
            "Typer application."
        )
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name)(target)
    return app
