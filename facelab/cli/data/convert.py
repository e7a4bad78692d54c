"""``facelab data convert``, ``pack``, ``to-rec``, ``from-rec``, ``index``: a source in another form."""

from pathlib import Path
from typing import Annotated

import typer

from facelab.cli.data import (
    RootOption,
    SizeOption,
    SourceArgument,
    WorkersOption,
    data_app,
    opened_source,
    progress_bar,
    show_table,
)
from facelab.cli.options import MOST, within, writable
from facelab.errors import ConfigError


@data_app.command("convert")
def convert(
    source: SourceArgument,
    to: Annotated[str, typer.Option(help="webdataset, parquet, packed or recordio.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The new folder; of recordio also the new .rec file.", callback=writable("new")
        ),
    ],
    root: RootOption = None,
    size: SizeOption = None,
    per_shard: Annotated[
        int, typer.Option(help="Images of each file of webdataset and parquet.", callback=within(1, MOST))
    ] = 10_000,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of what has to be encoded.")] = 95,
    png: Annotated[bool, typer.Option("--png", help="Encode as PNG, which loses nothing, instead of JPEG.")] = False,
    workers: WorkersOption = 0,
) -> None:
    """Write a source in another form, with the same labels and order. JPEG and PNG images are taken as they are."""
    from facelab.data.formats.conversion import FORMS, Form, encoder
    from facelab.errors import one_of

    one_of("--to", to, tuple(FORMS))
    opened = opened_source(source, root, size)
    with progress_bar("writing", len(opened)) as show:
        FORMS[to](Form(out, opened, encoder(opened, quality, png), per_shard, workers, show))
    show_table({to: out, "images": len(opened), "classes": opened.num_classes})


@data_app.command("pack")
def pack(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The new folder.", callback=writable("new"))],
    size: SizeOption = None,
    root: RootOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Decode all images once and write them as raw bytes that training reads without decoding."""
    from facelab.data.sources.packed import write_packed

    opened = opened_source(source, root, size)
    with progress_bar("packing", len(opened)) as show:
        packed = write_packed(out, opened, show, workers)
    meta = packed.meta
    show_table(
        {
            "packed": out,
            "images": len(packed),
            "classes": packed.num_classes,
            "size": f"{meta.height}x{meta.width}",
            "fingerprint": meta.fingerprint,
        }
    )


@data_app.command("to-rec")
def to_rec(
    source: SourceArgument,
    out: Annotated[
        Path,
        typer.Argument(
            help="The new .rec file; .idx, .lst and property are written beside it.", callback=writable("new")
        ),
    ],
    root: RootOption = None,
    size: SizeOption = None,
    header: Annotated[bool, typer.Option(help="Write InsightFace's header and identity records.")] = True,
    array_labels: Annotated[bool, typer.Option("--array-labels", help="Write two labels for each image.")] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of what has to be encoded.")] = 95,
) -> None:
    """Write a source as InsightFace's RecordIO. JPEG and PNG images are taken as they are."""
    from facelab.data.formats.conversion import encoder
    from facelab.data.formats.record_writer import RecordLayout, write_recordio

    if out.suffix != ".rec":
        raise ConfigError(f"'{out}' must end in .rec.")
    opened = opened_source(source, root, size)
    with progress_bar("writing", len(opened)) as show:
        write_recordio(out, opened, encoder(opened, quality), RecordLayout(header, array_labels), show)
    show_table({"records": out, "images": len(opened), "classes": opened.num_classes})


@data_app.command("from-rec")
def from_rec(
    source: SourceArgument,
    out: Annotated[
        Path, typer.Argument(help="The new folder; its list is train.txt inside it.", callback=writable("new"))
    ],
) -> None:
    """Write the images of a .rec file, or of any source, as folders of people with a training list."""
    from facelab.data.formats.conversion import write_image_folder

    opened = opened_source(source, None, None)
    with progress_bar("writing", len(opened)) as show:
        write_image_folder(out, opened, show)
    show_table({"folder": out, "list": out / "train.txt", "images": len(opened), "classes": opened.num_classes})


@data_app.command("index")
def index(
    file: Annotated[Path, typer.Argument(help="A .rec file without .idx, or a .tar shard without .index.")],
) -> None:
    """Write the .idx file that a .rec file lacks, or the .index of a tar shard."""
    from facelab.data.formats.records import write_index
    from facelab.data.shards.tar_writer import write_tar_index

    write = write_tar_index if file.suffix == ".tar" else write_index
    typer.echo(f"The index is in '{write(file)}'.")
