"""``facelab data align``: images and landmarks -> aligned faces."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from facelab.cli.data import data_app
from facelab.cli.options import within

if TYPE_CHECKING:
    from facelab.data.alignment.aligned_folder import AlignedFolder


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
    from facelab.data.alignment.align_files import AlignOptions
    from facelab.data.alignment.aligned_folder import align_folder
    from facelab.progress_bar import track

    console = Console(soft_wrap=True, markup=False, highlight=False)
    options = AlignOptions(size, form, file_format, quality, on_error, overwrite, workers)
    made = align_folder(images, landmarks, out, options, lambda work, count: track(work, count, "aligning", console))
    for sentence in _told(made, out, size):
        console.print(sentence, highlight=False, markup=False)


def _told(made: "AlignedFolder", out: Path, size: int) -> Iterator[str]:
    """What a user wants to know of a folder of aligned faces."""
    import numpy as np

    from facelab.data.alignment.aligned_folder import REPORT
    from facelab.data.alignment.alignment import ORDER, unlike_faces

    names, refused = made.faces.names, made.refused
    yield f"{len(names) - refused.count} of {len(names)} faces aligned to {size}x{size}, in {out}"
    strange = np.flatnonzero(unlike_faces(made.faces.points))
    if len(strange):
        yield (
            f"{len(strange)} have landmarks like no face, the first is '{names[strange[0]]}'; "
            f"their order must be {ORDER}."
        )
    if refused.count:
        yield f"{refused.count} refused, listed in {out / REPORT}; the first: {refused.entries[0].reason}"
