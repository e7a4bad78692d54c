"""``facelab list``, ``facelab cite`` and ``facelab show``: what there is, where it comes from, and how a run is set."""

import inspect
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from facelab.citation import Citation
from facelab.cli.commands import command
from facelab.cli.names import CONFIGS, REGISTRIES, complete_names, complete_words, config_or_setting
from facelab.cli.options import PluginOption
from facelab.errors import ConfigError, did_you_mean
from facelab.whole_words import WholeWords, plain_table

if TYPE_CHECKING:
    from facelab.registry import Registry

FACELAB = Citation(
    key="facelab",
    title="facelab: train, adapt and benchmark face recognition",
    authors="{facelab contributors}",
    venue="software",
    year=2026,
)


def registry_of(kind: str) -> "Registry[Any]":
    """The registry that ``facelab list KIND`` means.

    Raises:
        ConfigError: If there is none of that name.
    """
    plural = kind if kind.endswith("s") else f"{kind}s"
    if plural not in REGISTRIES:
        raise ConfigError(
            f"there are no '{kind}' to list.{did_you_mean(plural, REGISTRIES)} Known: {', '.join(REGISTRIES)}, configs."
        )
    module, attribute = REGISTRIES[plural]
    registry: Registry[Any] = getattr(import_module(module), attribute)
    return registry


@command("list", place=60)
def list_command(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(REGISTRIES)} or {CONFIGS}.",
            autocompletion=complete_words(*REGISTRIES, CONFIGS),
        ),
    ],
    plugins: PluginOption = None,
) -> None:
    """List everything of one kind with its options and its paper."""
    console = Console(markup=False)
    if kind in ("configs", "config"):
        console.print(WholeWords(_config_table()))
        return
    registry = registry_of(kind)
    if registry.names():
        console.print(WholeWords(_registry_table(registry)))
    else:
        console.print(f"No {registry.kind} is installed; docs/extending.md makes one.")


def _registry_table(registry: "Registry[Any]") -> Table:
    from facelab.catalogue import citation_of, entries

    def paper(name: str) -> str:
        citation = citation_of(registry, name)
        return citation.short() if citation else "-"

    recipes = _recipes() if registry.kind == "mode" else {}
    table = plain_table(title=f"{registry.kind}s")
    for column in ("name", "options and defaults", "paper", *(["configurations NAME/"] if recipes else [])):
        table.add_column(column, overflow="fold")
    for name in registry.names():
        shipped = [", ".join(recipes.get(name, ())) or "-"] if recipes else []
        table.add_row(name, _options(registry, name), paper(name), *shipped)
    for name, (registered, options) in sorted(entries(registry).items()):
        if name != registered:
            settings = ", ".join(f"{key}={value}" for key, value in options.items())
            table.add_row(name, f"= {registered}({settings})", paper(name), style="dim")
    return table


def _options(registry: "Registry[Any]", name: str) -> str:
    shown = [
        key if parameter.default is inspect.Parameter.empty else f"{key}={parameter.default!r}"
        for key, parameter in registry.options(name).items()
    ]
    return ", ".join(shown) or "-"


def _recipes() -> dict[str, list[str]]:
    """Shipped configurations beside that of each mode's own name, by the mode in whose folder they lie."""
    from facelab.run.shipped import shipped_configs

    recipes: dict[str, list[str]] = {}
    for name in shipped_configs():
        mode, _, recipe = name.partition("/")
        recipes.setdefault(mode, []).extend([recipe] if recipe else [])
    return recipes


def _config_table() -> Table:
    from facelab.run.shipped import shipped_configs

    table = plain_table("name", "what it is", title="shipped configurations")
    for name, path in shipped_configs().items():
        table.add_row(name, _first_sentence(path))
    return table


def _first_sentence(path: Path) -> str:
    """What the comment at the top of a configuration begins with."""
    comment = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0].rstrip(".") + "."


@command("cite", place=80)
def cite_command(
    name: Annotated[
        str,
        typer.Argument(
            help="Any registered name or catalogue entry, or 'facelab'.", autocompletion=complete_names(*REGISTRIES)
        ),
    ] = "facelab",
) -> None:
    """Print the BibTeX of a method."""
    typer.echo(find_citation(name).bibtex())


def find_citation(name: str) -> Citation:
    """The paper behind a registered name or a catalogue entry.

    Raises:
        ConfigError: If nothing has that name, or it comes from no paper.
    """
    from facelab.catalogue import citation_of, entries

    if name == "facelab":
        return FACELAB
    known: set[str] = set()
    for kind in REGISTRIES:
        registry = registry_of(kind)
        known |= {*registry.names(), *entries(registry)}
        if name in known:
            citation = citation_of(registry, name)
            if citation is None:
                raise ConfigError(f"{registry.kind} '{name}' comes from no paper; cite 'facelab'.")
            return citation
    raise ConfigError(f"nothing is called '{name}'.{did_you_mean(name, known)}")


@command("show", place=70)
def show_command(
    source: Annotated[
        str,
        typer.Argument(
            help="A configuration file, a shipped configuration or a run folder.",
            autocompletion=complete_names(CONFIGS),
        ),
    ] = "conventional",
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value overrides", autocompletion=config_or_setting)
    ] = None,
) -> None:
    """Print the resolved configuration, or how a run stands."""
    if (Path(source) / "config.yaml").is_file():
        Console(markup=False).print(WholeWords(_run_table(Path(source))))
        return
    import yaml

    from facelab.run.settings import VARIANTS, load_tree, make_config
    from facelab.run.study import make_study

    tree = load_tree(source, overrides or [])
    if VARIANTS in tree:
        study = make_study(tree, Path(str(tree.get("output", "runs"))) / str(tree.get("name", "run")), f"'{source}'")
        runs = {**({} if study.base is None else {"base": study.base}), **study.variants}
        tree = {name: config.tree() for name, config in runs.items()}
    else:
        tree = make_config(tree, f"'{source}'").tree()
    typer.echo(yaml.safe_dump(tree, sort_keys=False).rstrip())


def _run_table(run: Path) -> Table:
    from facelab.weights.card_check import check_card
    from facelab.weights.checkpoint import CheckpointStore
    from facelab.weights.snapshot import read_card

    store = CheckpointStore(run / "checkpoints")
    index = store.index()
    table = Table("what", "value", title=str(run), title_justify="left")
    for key in ("last", "best", "best_score"):
        table.add_row(key, str(getattr(index, key)))
    table.add_row("checkpoints", ", ".join(store.names()) or "none")
    if index.last:
        card = read_card(store.find("last"))
        check_card(card, str(run))
        table.add_row("backbone", card["backbone"]["name"])
        table.add_row("parameters", f"{card['parameters']:,}")
        table.add_row(
            "input", "x".join(str(card["input"][key]) for key in ("height", "width")) + f" {card['input']['colour']}"
        )
        table.add_row("embedding", str(card.get("embedding_dim", card["feat_dim"])))
    return table
