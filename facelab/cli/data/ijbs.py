"""``facelab data ijbs-crops``: face crops from the videos of IJB-S."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from facelab.cli.data import data_app
from facelab.cli.options import within, writable

REPORT = "refused.csv"


@data_app.command("ijbs-crops")
def ijbs_crops_command(
    root: Annotated[Path, typer.Argument(help="Raw IJB-S: videos, img, and the lists in it or in protocols.")],
    out: Annotated[
        Path | None, typer.Argument(help="Folder for the crops; ROOT/crops by default.", callback=writable("folder"))
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the crops in pixels.", callback=within(1, 1 << 14))] = 112,
    margin: Annotated[
        float,
        typer.Option(help="Added on each side of the box, as a share of its longer side.", callback=within(0, 10)),
    ] = 0.1,
    quality: Annotated[int, typer.Option(help="JPEG quality.")] = 95,
    first_frame: Annotated[int, typer.Option(help="Number of a video's first frame in the metadata, 0 or 1.")] = 0,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of the columns of left, top, width, height and frame, if they are called otherwise."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Videos read at the same time; 0 for one per core.")] = 2,
) -> None:
    """Cut the faces of IJB-S by the ground truth of its metadata; run it again to go on where it stopped."""
    from facelab.data.alignment.ijbs_boxes import COLUMNS
    from facelab.data.alignment.ijbs_crops import CropCutter, CropOptions
    from facelab.data.loading.refusals import Refusals
    from facelab.progress_bar import counted_bars

    console = Console(soft_wrap=True, markup=False, highlight=False)
    target = root / "crops" if out is None else out
    named = COLUMNS if columns is None else tuple(name.strip() for name in columns.split(","))
    cutter = CropCutter(root, target, CropOptions(size, margin, quality, first_frame, named, workers))
    written = present = 0
    refused = Refusals()
    with counted_bars(console) as show:
        for cut in cutter.cut():
            written, present = written + cut.written, present + cut.present
            for entry in cut.refused:
                refused.add(entry.location, entry.reason)
            show("cutting", written + present + refused.count, len(cutter))
    found = f", {present:,} were there" if present else ""
    console.print(f"{written:,} of {len(cutter):,} faces cut{found}, in {target}", highlight=False, markup=False)
    if refused.count:
        refused.write(target / REPORT)
        first = refused.entries[0]
        console.print(
            f"{refused.count:,} could not be cut, listed in {target / REPORT}; the first: "
            f"{first.location}: {first.reason}",
            highlight=False,
            markup=False,
        )
