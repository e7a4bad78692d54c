"""``facelab data``: make, check, choose and convert training sets; what its commands share."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from facelab.cli.commands import group
from facelab.cli.options import writable
from facelab.errors import ConfigError
from facelab.threads import MOST_WORKERS

if TYPE_CHECKING:
    from facelab.data.base import Source

data_app = group("data", "Make, check, choose and convert training sets.", place=10)

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder or archive of people, list (.txt, .lst), .rec file, packed folder, shards (.tar, .parquet; also "
        "addresses), .lmdb file, the name of a source, or YAML: "
        "'{ImageFolder: {root: lfw.tar, min_images: 5}}'.",
    ),
]
EntriesArgument = Annotated[Path, typer.Argument(metavar="LIST", help="Training list, or folder or archive of people.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The new list.", callback=writable("new"))]
RootOption = Annotated[Path | None, typer.Option(help="Where the paths of a list start; by default its own folder.")]
SizeOption = Annotated[
    str | None, typer.Option(help="Bring all images to this size: 112, or rows x columns as in 112x96.")
]
WorkersOption = Annotated[int, typer.Option(min=0, max=MOST_WORKERS, help="Threads that read; 0 for one per core.")]


class _Rate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The rate as text."""
        return Text("… images/s" if task.speed is None else f"{task.speed:,.0f} images/s")


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar with rate and time left, where stderr is a terminal; yields a function of the number done (and of all)."""
    console = Console(stderr=True, markup=False, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, visible=total is not None)
        yield lambda done, of=total: bar.update(task, completed=done, total=of, visible=True)


def show_table(rows: Mapping[str, object]) -> None:
    """Print names and values, aligned."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(f"{value:,}" if isinstance(value, int) else str(value)))
    Console(soft_wrap=True, markup=False, highlight=False).print(table)


def opened_source(source: str, root: Path | None, size: str | None) -> "Source":
    """The source that a command line names, with its images brought to a size where one is given."""
    from facelab.data.sources.open_source import open_source
    from facelab.data.sources.resized import Resized

    with progress_bar("preparing") as show:
        opened = open_source(source, root, show)
    return opened if size is None else Resized(opened, *parsed_size(size))


def parsed_size(text: str) -> tuple[int, int]:
    """Rows and columns of ``112`` or ``112x96``.

    Raises:
        ConfigError: If it is neither.
    """
    fields = text.lower().split("x")
    if len(fields) > 2 or not all(field.isdecimal() for field in fields):
        raise ConfigError(f"--size is '{text}', but must be a number such as 112, or rows x columns such as 112x96.")
    return int(fields[0]), int(fields[-1])
