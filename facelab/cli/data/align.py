"""``facelab data align``: photos, and landmarks or a detector -> aligned faces."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from facelab.cli.data import data_app
from facelab.cli.detect import (
    DetectorOption,
    DetectorOptions,
    MinScoreOption,
    MinSizeOption,
    SelectOption,
    built_detector,
)
from facelab.cli.options import PluginOption, within, writable
from facelab.errors import ConfigError, printable

if TYPE_CHECKING:
    from facelab.data.alignment.aligned_folder import AlignedFolder
    from facelab.data.alignment.detected_folder import DetectedFolder


@data_app.command("align")
def align_command(
    images: Annotated[
        Path, typer.Argument(help="Folder of images, an archive (.tar, .zip, .tar.gz) of one, or a list of paths.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the aligned images; they keep their names below it.", callback=writable("folder")
        ),
    ],
    landmarks: Annotated[
        Path | None,
        typer.Option(
            help="Text lines 'path x1 y1 … x5 y5' (also 25, 68 or 106 points), or JSON {path: points}; without it a "
            "detector finds the faces."
        ),
    ] = None,
    detector: DetectorOption = "yunet",
    option: DetectorOptions = None,
    select: SelectOption = "largest",
    min_size: MinSizeOption = 10.0,
    min_score: MinScoreOption = None,
    on_missing: Annotated[
        Literal["error", "skip", "centre_crop"],
        typer.Option(help="What to do with a photo without a face; centre_crop takes the square in its centre."),
    ] = "error",
    root: Annotated[Path | None, typer.Option(help="Where the paths of a list start; by default its folder.")] = None,
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
    plugins: PluginOption = None,
) -> None:
    """Find faces, or take them from a file of landmarks, and align them to the ArcFace template."""
    from facelab.data.alignment.align_files import AlignOptions
    from facelab.data.alignment.aligned_folder import align_folder
    from facelab.data.alignment.detected_folder import align_photos
    from facelab.data.alignment.photo_aligner import FaceChoice, PhotoAligner
    from facelab.data.alignment.photos import open_photos
    from facelab.progress_bar import track

    console = Console(soft_wrap=True, markup=False, highlight=False)
    options = AlignOptions(size, form, file_format, quality, on_error, overwrite, workers)
    if landmarks is not None:
        finding = (detector, option, select, min_size, min_score, on_missing, root)
        if finding != ("yunet", None, "largest", 10.0, None, "error", None):
            raise ConfigError(
                "--landmarks says where the faces are; --detector, --option, --select, --min-size, --min-score, "
                "--on-missing and --root are for photos without landmarks."
            )
        made = align_folder(images, landmarks, out, options, lambda work, n: track(work, n, "aligning", console))
        sentences = _told(made, out, size)
    else:
        photos, choice = open_photos(images, root), FaceChoice(select, min_size, on_missing)
        found_by = built_detector(detector, option, min_score)
        aligner = PhotoAligner(found_by.detector, choice, size, form)
        record = aligner.record(found_by.name, found_by.options, "png" if file_format == "png" else f"jpg {quality}")
        found = align_photos(
            photos, aligner, record, out, options, lambda work, n: track(work, n, "aligning", console, "photos")
        )
        sentences = chain(_told_of_photos(found, out, size), photos.left_out)
    for sentence in sentences:
        console.print(printable(sentence), highlight=False, markup=False)


def _told_of_photos(made: "DetectedFolder", out: Path, size: int) -> Iterator[str]:
    """What a user wants to know of photos in which faces were looked for."""
    from facelab.data.alignment.aligned_folder import REPORT

    yield f"{made.crops} faces of {made.photos} photos aligned to {size}x{size}, in {out}"
    if made.before:
        yield f"{made.before} of the photos had been done before"
    if made.several:
        yield f"{made.several} photos have more faces than were taken"
    if made.centred:
        yield f"{made.centred} have no face that was found; the square in their centre was taken"
    if made.refused.count:
        yield f"{made.refused.count} refused, listed in {out / REPORT}; the first: {made.refused.entries[0].reason}"


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
