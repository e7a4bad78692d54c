"""``facelab data mask`` and ``occlude``: the faces of a source with something in front of them."""

from pathlib import Path
from typing import Annotated

import typer

from facelab.cli.data import RootOption, SizeOption, SourceArgument, data_app, opened_source, progress_bar, show_table
from facelab.cli.options import MOST, within, writable


@data_app.command("mask")
def mask(
    source: SourceArgument,
    out: Annotated[
        Path, typer.Argument(help="The new folder; its list is train.txt inside it.", callback=writable("new"))
    ],
    landmarks: Annotated[
        Path | None, typer.Option(help="File with landmarks of each image; without it the faces are aligned.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="surgical, cloth, ffp2, cup or bandana; may be repeated, all by default.")
    ] = None,
    texture: Annotated[
        list[str] | None, typer.Option(help="plain, pleats, stripes, dots or checks; may be repeated, all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses the masks.", callback=within(0, MOST))] = 0,
    root: RootOption = None,
    size: SizeOption = None,
) -> None:
    """Write the images of a source with a drawn face mask on each, under their own names."""
    from facelab.catalogue import build
    from facelab.data.base import SOURCES
    from facelab.data.formats.conversion import write_image_folder

    opened = opened_source(source, root, size)
    options = {"landmarks": landmarks, "shapes": shape or [], "textures": texture or [], "seed": seed}
    masked = build(SOURCES, {"Masked": options}, source=opened)
    with progress_bar("putting masks on", len(opened)) as show:
        write_image_folder(out, masked, show, opened)
    show_table({"folder": out, "list": out / "train.txt", "images": len(masked), "classes": masked.num_classes})


@data_app.command("occlude")
def occlude(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The new folder, with one for each region.", callback=writable("new"))],
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="left_eye, right_eye, both_eyes, nose, mouth, lower_face, upper_face, left_face or right_face; may be "
            "repeated, all by default."
        ),
    ] = None,
    fill: Annotated[str, typer.Option(help="texture, noise, or a grey value from 0 to 255.")] = "texture",
    seed: Annotated[int, typer.Option(help="Chooses textures, noise and colours.", callback=within(0, MOST))] = 0,
    root: RootOption = None,
    size: SizeOption = None,
) -> None:
    """Write the aligned faces of a source with a region covered, under their own names; one folder for each region."""
    from facelab.catalogue import build
    from facelab.data.alignment.regions import REGIONS
    from facelab.data.base import SOURCES
    from facelab.data.formats.conversion import write_image_folder
    from facelab.data.formats.writing import written_folder

    opened = opened_source(source, root, size)
    options = {"fill": int(fill) if fill.isdecimal() else fill, "seed": seed}
    covered = {
        name: build(SOURCES, {"Occluded": {"region": name, **options}}, source=opened) for name in region or REGIONS
    }
    with written_folder(out) as folder:
        for name, faces in covered.items():
            with progress_bar(f"covering {name}", len(opened)) as show:
                write_image_folder(folder / name, faces, show, opened)
    show_table({"folder": out, "regions": ", ".join(covered), "images of each": len(opened)})
