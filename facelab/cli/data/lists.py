"""``facelab data list``, ``subset``, ``exclude-overlap``, ``shallow``: training lists of some people or images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facelab.cli.data import EntriesArgument, OutOption, data_app, show_table
from facelab.cli.options import MOST, within
from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.data.sources.selection import Entries, Rows


@data_app.command("list")
def make_list(
    folder: EntriesArgument,
    out: OutOption = Path("train.txt"),
    min_images: Annotated[int, typer.Option(help="Leave out people with fewer images.", callback=within(1, MOST))] = 1,
) -> None:
    """Write the training list (`path label` lines) of a folder with one folder for each person."""
    from facelab.data.sources.selection import read_entries, rows_of_large_classes

    entries = read_entries(folder)
    _write_rows(out, entries, rows_of_large_classes(entries, min_images))


@data_app.command("subset")
def subset(
    source: EntriesArgument,
    ids: Annotated[Path | None, typer.Option(help="File with one person's name (folder name) a line.")] = None,
    kept: Annotated[
        Path | None,
        typer.Option("--list", help="List of images (`path label`), as `facelab data doctor` writes."),
    ] = None,
    out: OutOption = Path("subset.txt"),
) -> None:
    """Keep some people, as FaceX-Zoo's MS-Celeb-1M-v1c-r id list does, or some images; classes are numbered anew."""
    from facelab.data.sources.selection import read_entries, rows_of_list, rows_of_people

    if (ids is None) == (kept is None):
        raise ConfigError("say what to keep: people by --ids FILE, or images by --list FILE.")
    entries = read_entries(source)
    if ids is not None:
        _write_rows(out, entries, rows_of_people(entries, ids))
    elif kept is not None:
        _write_rows(out, entries, rows_of_list(entries, kept))


@data_app.command("exclude-overlap")
def exclude_overlap(
    source: EntriesArgument,
    lists: Annotated[list[Path], typer.Argument(help="Test lists: pairs.txt, image lists, or one name a line.")],
    out: OutOption = Path("train-without-test.txt"),
) -> None:
    """Remove everybody who occurs in a test list, so that no test person is trained on; classes are numbered anew.

    Case, spaces, hyphens and underscores of names do not count.
    """
    from facelab.data.sources.selection import people_of_test_list, read_entries, rows_without

    tested = {path: people_of_test_list(path) for path in lists}
    entries = read_entries(source)
    rows, met = rows_without(entries, frozenset().union(*tested.values()))
    for path, people in tested.items():
        typer.echo(f"{path}: {len(people & met):,} of {len(people):,} people were in the training set.")
    _write_rows(out, entries, rows)


@data_app.command("shallow")
def shallow(
    source: EntriesArgument,
    per_id: Annotated[
        int, typer.Option(help="Images of each person; people with fewer are left out.", callback=within(1, MOST))
    ] = 2,
    seed: Annotated[int, typer.Option(help="Chooses the images.", callback=within(0, MOST))] = 0,
    out: OutOption = Path("shallow.txt"),
) -> None:
    """Take a few random images of each person; classes are numbered anew."""
    from facelab.data.sources.selection import read_entries, rows_shallow

    entries = read_entries(source)
    _write_rows(out, entries, rows_shallow(entries, per_id, seed))


def _write_rows(out: Path, entries: "Entries", rows: "Rows") -> None:
    import numpy as np

    from facelab.data.sources.selection import write_list

    classes = write_list(out, entries, rows)
    show_table(
        {
            "list": out,
            "images": f"{len(rows):,} of {len(entries.names):,}",
            "classes": f"{classes:,} of {len(np.unique(entries.labels)):,}",
        }
    )
