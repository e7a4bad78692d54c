"""``facelab data synthetic``: synthetic faces in the formats of real data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from facelab.cli.data import data_app
from facelab.cli.options import MOST, within, writable

if TYPE_CHECKING:
    from facelab.data.synthetic.source import Split


@data_app.command("synthetic")
def synthetic_command(
    out: Annotated[
        Path,
        typer.Argument(help="Folder; each format gets a folder or file of its own in it.", callback=writable("folder")),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="list, record, lfw, bin, tinyface, ijb, ijbs, some of them as in lfw,bin, or all."
        ),
    ] = "all",
    identities: Annotated[int, typer.Option(help="Number of persons.")] = 100,
    per_identity: Annotated[int, typer.Option(help="Images of each person.")] = 10,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 112,
    seed: Annotated[
        int, typer.Option(help="Another seed draws other persons and pairs.", callback=within(0, MOST))
    ] = 0,
    split: Annotated[
        str | None, typer.Option(help="train or test; by default train for list and record, test for the others.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of lfw and bin.")] = 10,
    pairs: Annotated[int, typer.Option(help="Pairs of lfw and bin in all, half of them of one person.")] = 600,
    resolution: Annotated[int, typer.Option(help="Mean resolution of tinyface and ijbs, in pixels.")] = 16,
) -> None:
    """Write synthetic faces as image list, RecordIO, LFW, InsightFace .bin, TinyFace, IJB-C or IJB-S folders."""
    from rich.progress import Progress, TaskID

    from facelab.data.synthetic.formats import FORMATS, Export, write_format
    from facelab.errors import one_of

    if split is not None:
        one_of("--split", split, ["train", "test"])
    names = list(FORMATS) if form == "all" else [one_of("--format", name, list(FORMATS)) for name in form.split(",")]
    export = Export(out, identities, per_identity, size, seed, cast("Split | None", split), folds, pairs, resolution)
    with Progress(transient=True) as bars:
        for name in names:
            bar = bars.add_task(name)

            def show(done: int, total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done, total=total)

            path = write_format(name, export, show)
            bars.console.print(f"{name}: {path}", soft_wrap=True, highlight=False)
