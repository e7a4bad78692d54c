"""``facelab data align``: images and landmarks -> aligned faces."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from facelab.cli.data import data_app
from facelab.cli.options import within
from facelab.errors import DataError

REPORT = "refused.csv"


@data_app.command("align")
def align_command(
    images: Annotated[Path, typer.Argument(help="Folder of images, or an archive (.tar, .zip, .tar.gz) of one.")],
    landmarks: Annotated[
        Path, typer.Option(help="Text lines 'path x1 y1 … x5 y5' (also 25, 68 or 106 points), or JSON {path: points}.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the aligned images; they keep their names below it.")],
    size: Annotated[
        int, typer.Option(help="Side of the aligned images in pixels, usually 112 or 120.", callback=within(1, 1 << 14))
    ] = 112,
    form: Annotated[
        Literal["scaled", "resized"],
        typer.Option(help="Template for sizes other than 112; 'resized' is what PETALface trains on."),
    ] = "scaled",
    file_format: Annotated[Literal["png", "jpg"], typer.Option("--format", help="png loses nothing.")] = "png",
    quality: Annotated[int, typer.Option(help="Of jpg, 95 to 100.")] = 95,
    on_error: Annotated[
        Literal["error", "skip"], typer.Option(help="What to do with an image that cannot be aligned.")
    ] = "error",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    workers: Annotated[int, typer.Option(help="Threads; 0 for one per core.")] = 2,
) -> None:
    """Align faces by their landmarks to the ArcFace template."""
    import numpy as np

    from facelab.data.alignment.align_files import AlignOptions, align_files
    from facelab.data.alignment.alignment import ORDER, unlike_faces
    from facelab.data.alignment.landmarks import read_landmarks
    from facelab.data.formats.alignment_record import AlignmentRecord
    from facelab.data.formats.open_files import open_files
    from facelab.data.loading.refusals import Refusals
    from facelab.progress_bar import track

    console = Console(soft_wrap=True, markup=False, highlight=False)
    options = AlignOptions(size, form, file_format, quality, on_error, overwrite, workers)
    if (out / REPORT).exists() and not overwrite:
        raise DataError(f"{out / REPORT}: exists; write to another folder, or allow it with --overwrite.")
    record = AlignmentRecord.of(size, form, landmarks)
    if not overwrite:
        record.refuse_other(out)
    faces = read_landmarks(landmarks)
    refused = Refusals()
    work = align_files(open_files(images), faces, out, options)
    for refusal in track(work, len(faces.names), "aligning", console):
        if refusal is not None:
            refused.add(refusal.location, refusal.reason)
    record.write(out)
    done = len(faces.names) - refused.count
    console.print(
        f"{done} of {len(faces.names)} faces aligned to {size}x{size}, in {out}", highlight=False, markup=False
    )
    strange = np.flatnonzero(unlike_faces(faces.points))
    if len(strange):
        console.print(
            f"{len(strange)} have landmarks like no face, the first is '{faces.names[strange[0]]}'; "
            f"their order must be {ORDER}.",
            highlight=False,
            markup=False,
        )
    if refused.count:
        refused.write(out / REPORT)
        first = refused.entries[0].reason
        console.print(
            f"{refused.count} refused, listed in {out / REPORT}; the first: {first}", highlight=False, markup=False
        )
