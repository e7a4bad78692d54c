"""``facelab data inspect``: what a source holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facelab.cli.data import (
    RootOption,
    SourceArgument,
    WorkersOption,
    data_app,
    opened_source,
    progress_bar,
    show_table,
)
from facelab.cli.options import writable

if TYPE_CHECKING:
    from facelab.data.base import Source
    from facelab.data.formats.inspection import Inspection

SHOWN = 10  # corrupt images that are printed
SAMPLE = 100  # images that are read unless all are to be


@data_app.command("inspect")
def inspect(
    source: SourceArgument,
    root: RootOption = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Read every image; finds corrupt ones and duplicates.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write the corrupt images to this .jsonl or .csv file.", callback=writable())
    ] = None,
    workers: WorkersOption = 0,
) -> None:
    """Say what a source holds: images, classes, images per class, sizes and, with --decode, what is corrupt."""
    import numpy as np

    from facelab.data.formats.inspection import inspect_images
    from facelab.data.loading.refusals import check_report_name

    if report is not None:
        # Before the images are read, which may take hours.
        check_report_name(report)
    opened = opened_source(source, root, None)
    some = np.unique(np.linspace(0, len(opened) - 1, SAMPLE).astype(int)).tolist()
    rows = range(len(opened)) if decode else some
    with progress_bar("reading", len(rows)) as show:
        found = inspect_images(opened, rows, workers, show)
    show_table(_summary(opened) | _findings(found))
    for entry in found.corrupt.entries[:SHOWN]:
        typer.echo(entry.reason)
    if report is not None:
        found.corrupt.write(report)


def _summary(source: "Source") -> dict[str, object]:
    from facelab.data.formats.inspection import class_counts

    counts = class_counts(source)
    return {
        "kind": type(source).__name__,
        "images": len(source),
        "classes": source.num_classes,
        "images per class": f"{counts.smallest:,} to {counts.largest:,}, median {counts.median:,g}",
        "classes of one image": counts.single,
        "alignment": source.alignment,
        "fingerprint": source.fingerprint(),
    }


def _findings(found: "Inspection") -> dict[str, object]:
    sizes = ", ".join(f"{height}x{width} ({count:,})" for (height, width), count in found.sizes.most_common(5))
    more = f" and {len(found.sizes) - 5} more" if len(found.sizes) > 5 else ""
    return {
        "images read": found.read,
        "sizes": (sizes or "none") + more,
        "corrupt": found.corrupt.count,
        "duplicates": f"{found.duplicates:,}, of which {found.conflicts:,} have another label",
    }
