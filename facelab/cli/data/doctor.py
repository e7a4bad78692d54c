"""``facelab data doctor``: what is wrong with a set, and a list without it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from facelab.cli.data import RootOption, SourceArgument, WorkersOption, data_app, opened_source, show_table
from facelab.cli.names import complete_names
from facelab.cli.options import MOST, CheckpointOption, DeviceOption, PluginOption, within, writable
from facelab.errors import ConfigError, one_of

if TYPE_CHECKING:
    from facelab.doctor.crop_points import CropPoints
    from facelab.doctor.findings import Diagnosis
    from facelab.iqa.base import PixelScorer

NONE = "none"  # for no scorer, and for no detector
USUAL_DETECTOR = "yunet"


@data_app.command("doctor")
def doctor_command(
    source: SourceArgument,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Run or checkpoint that embeds; labels are checked with it.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Or a backbone of the catalogue, with --weights.", autocompletion=complete_names("backbones")
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A safetensors file for --backbone.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Test set whose people must not be in the set; may be repeated."),
    ] = None,
    scorer: Annotated[
        str,
        typer.Option(
            "--scorer",
            "-s",
            help="Of quality, see: facelab list scorers; or none.",
            autocompletion=complete_names("scorers"),
        ),
    ] = "Sharpness",
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the scorer; may be repeated.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Finds landmarks again, see: facelab list detectors; or none. By default yunet, if it is installed.",
            autocompletion=complete_names("detectors"),
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="What is left out of the list, for example 'wrong label'; may be repeated. By default "
            "all but 'quality', 'no face', 'unlike pair' and 'single'.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.", callback=writable("new"))] = Path(
        "doctor"
    ),
    shown: Annotated[
        int, typer.Option(help="Images, or pairs, of each finding on the page.", callback=within(0, 1000))
    ] = 24,
    root: RootOption = None,
    checkpoint: CheckpointOption = "last",
    device: DeviceOption = "auto",
    plugins: PluginOption = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps embeddings.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a forward pass.")] = 64,
    workers: WorkersOption = 0,
    seed: Annotated[int, typer.Option(help="Of all random choices.", callback=within(0, MOST))] = 0,
) -> None:
    """Find what is wrong with a training or test set; writes a page, a table, and keep.txt, a list without it.

    `facelab data subset SOURCE --list doctor/keep.txt` makes a training list of what stays.
    """
    from facelab.cli.evaluate import open_models
    from facelab.doctor.examination import ExaminationOptions, examine
    from facelab.doctor.findings import KINDS
    from facelab.doctor.written import PAGE, check_names, write_diagnosis
    from facelab.model.face_model import pick_device
    from facelab.progress_bar import counted_bars

    for kind in drop or ():
        one_of("--drop", kind, tuple(KINDS))
    kinds = frozenset(drop or (name for name, kind in KINDS.items() if kind.left_out))
    where = pick_device(device)
    models = (
        []
        if model is None and backbone is None and weights is None
        else open_models([] if model is None else [model], checkpoint, backbone, weights, str(where))
    )
    judge = _pixel_scorer(scorer, option or [])
    opened = opened_source(source, root, None)
    check_names(opened)
    tests = {name: opened_source(name, None, None) for name in against or ()}
    points, why_none = _point_finder(detector)
    options = ExaminationOptions(
        scorer=judge,
        find_points=points,
        why_no_points=why_none,
        network=models[0].network if models else None,
        against=tests,
        device=where,
        batch_size=batch_size,
        workers=workers,
        cache=cache,
        seed=seed,
    )
    with counted_bars(Console(stderr=True, markup=False, highlight=False)) as show:
        diagnosis = examine(opened, options, show)
    write_diagnosis(out, source, diagnosis, kinds, shown)
    _print(diagnosis, kinds)
    typer.echo(f"The page is '{out / PAGE}'.")


def _pixel_scorer(name: str, options: Sequence[str]) -> "PixelScorer | None":
    from facelab.cli.scores import NETWORK
    from facelab.config import parse_overrides
    from facelab.iqa.base import SCORERS, PixelScorer

    if name == NONE:
        return None
    if NETWORK not in SCORERS.parameters(name):
        scorer = SCORERS.build(name, parse_overrides(options))
        if isinstance(scorer, PixelScorer):
            return scorer
    raise ConfigError(f"--scorer is '{name}', but must be one that looks at pixels alone, such as Sharpness, or none.")


def _point_finder(name: str | None) -> "tuple[CropPoints | None, str]":
    """What finds landmarks, or why nothing does."""
    from facelab.data.detection.base import DETECTORS
    from facelab.doctor.crop_points import CropPoints

    if name == NONE:
        return None, "so it was asked for by --detector none."
    try:
        return CropPoints(DETECTORS.build(name or USUAL_DETECTOR, {})), ""
    except ConfigError as error:
        if name is not None:
            raise
        return None, str(error)


def _print(diagnosis: "Diagnosis", kinds: frozenset[str]) -> None:
    """What was found as tables."""
    from rich.table import Table
    from rich.text import Text

    from facelab.doctor.findings import KINDS

    show_table(diagnosis.facts)
    table = Table(box=None, pad_edge=False)
    table.add_column("finding")
    table.add_column("found", justify="right")
    table.add_column("suspects", justify="right")
    table.add_column("left out")
    for finding in diagnosis.findings:
        title = KINDS[finding.kind].title
        if finding.beside_in is not None:
            title += f" {finding.beside_in[0]}"
        left_out = f"{len(finding.suspects):,}" if finding.kind in kinds else "–"
        table.add_row(Text(title), f"{len(finding.rows):,}", f"{len(finding.suspects):,}", left_out)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print()
    console.print(table)
    for note in diagnosis.notes:
        console.print(note)
    kept = int(diagnosis.kept(kinds).sum())
    console.print(f"{kept:,} of {len(diagnosis.source):,} images stay in keep.txt.")
