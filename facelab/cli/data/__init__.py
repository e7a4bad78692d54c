"""``facelab data``: make, check, choose, join and convert training sets."""

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
from facelab.cli.options import MOST, within
from facelab.errors import ConfigError
from facelab.threads import MOST_WORKERS

if TYPE_CHECKING:
    from facelab.data.base import Source
    from facelab.data.formats.inspection import Inspection
    from facelab.data.sources.selection import Entries, Rows

data_app = group("data", "Make, check, choose and convert training sets.", place=10)

SHOWN = 10  # corrupt images that `inspect` prints
SAMPLE = 100  # images that `inspect` reads unless told to read all

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
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The new list.")]
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


@data_app.command("pack")
def pack(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The new folder.")],
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


@data_app.command("inspect")
def inspect(
    source: SourceArgument,
    root: RootOption = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Read every image; finds corrupt ones and duplicates.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write the corrupt images to this .jsonl or .csv file.")] = None,
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


@data_app.command("to-rec")
def to_rec(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The new .rec file; .idx, .lst and property are written beside it.")],
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
    out: Annotated[Path, typer.Argument(help="The new folder; its list is train.txt inside it.")],
) -> None:
    """Write the images of a .rec file, or of any source, as folders of people with a training list."""
    from facelab.data.formats.conversion import write_image_folder

    opened = opened_source(source, None, None)
    with progress_bar("writing", len(opened)) as show:
        write_image_folder(out, opened, show)
    show_table({"folder": out, "list": out / "train.txt", "images": len(opened), "classes": opened.num_classes})


@data_app.command("convert")
def convert(
    source: SourceArgument,
    to: Annotated[str, typer.Option(help="webdataset, parquet, packed or recordio.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder; of recordio also the new .rec file.")],
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
    from facelab.data.formats.writing import refuse_existing
    from facelab.errors import one_of

    one_of("--to", to, tuple(FORMS))
    refuse_existing(out)
    opened = opened_source(source, root, size)
    with progress_bar("writing", len(opened)) as show:
        FORMS[to](Form(out, opened, encoder(opened, quality, png), per_shard, workers, show))
    show_table({to: out, "images": len(opened), "classes": opened.num_classes})


@data_app.command("mask")
def mask(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The new folder; its list is train.txt inside it.")],
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
    from facelab.data.formats.writing import refuse_existing

    refuse_existing(out)
    opened = opened_source(source, root, size)
    options = {"landmarks": landmarks, "shapes": shape or [], "textures": texture or [], "seed": seed}
    masked = build(SOURCES, {"Masked": options}, source=opened)
    with progress_bar("putting masks on", len(opened)) as show:
        write_image_folder(out, masked, show, opened)
    show_table({"folder": out, "list": out / "train.txt", "images": len(masked), "classes": masked.num_classes})


@data_app.command("occlude")
def occlude(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The new folder, with one for each region.")],
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
    from facelab.data.formats.writing import refuse_existing, written_folder

    refuse_existing(out)
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


@data_app.command("index")
def index(
    file: Annotated[Path, typer.Argument(help="A .rec file without .idx, or a .tar shard without .index.")],
) -> None:
    """Write the .idx file that a .rec file lacks, or the .index of a tar shard."""
    from facelab.data.formats.records import write_index
    from facelab.data.shards.tar_writer import write_tar_index

    write = write_tar_index if file.suffix == ".tar" else write_index
    typer.echo(f"The index is in '{write(file)}'.")


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
