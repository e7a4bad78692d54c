"""``facelab iqa``: score the quality of images once, and draw how it is distributed."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from facelab.cli.commands import group
from facelab.cli.data import RootOption, show_table
from facelab.cli.names import complete_names
from facelab.cli.options import DeviceOption, PluginOption, writable
from facelab.errors import ConfigError

iqa_app = group("iqa", "Score the quality of images.", place=20)


@iqa_app.command("score")
def score_command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA | PROTOCOL.OPTION=VALUE...",
            help="A training set (folder or archive of people, list, .rec file, packed folder, YAML), or protocols as "
            "`facelab test` takes them: LFW.root=lfw112.tar LFW.pairs=pairs.txt, or data_root=FOLDER.",
        ),
    ],
    scorer: Annotated[
        str, typer.Option("--scorer", "-s", help="See: facelab list scorers.", autocompletion=complete_names("scorers"))
    ],
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the scorer; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The table; a folder for protocols. By default beside the data.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Run or checkpoint, for FeatureNorm.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Or a backbone of the catalogue, with --weights.", autocompletion=complete_names("backbones")
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A safetensors file for --backbone.")] = None,
    root: RootOption = None,
    size: Annotated[
        str | None, typer.Option(help="Bring all images to this size first: 112, or rows x columns as in 112x96.")
    ] = None,
    device: DeviceOption = "auto",
    plugins: PluginOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read and score; 0 for one per core.")] = 0,
) -> None:
    """Score every image once; writes one table for the data, or one for each protocol.

    Started by `python -m facelab.launch`, its processes share the images.
    """
    from facelab import distributed
    from facelab.cli.scores import build_scorer, score_set, sets_to_score
    from facelab.iqa.scored_set import ScoringOptions
    from facelab.model.face_model import pick_device

    with distributed.joined():
        console = Console(soft_wrap=True, markup=False, highlight=False, quiet=not distributed.is_main())
        where = pick_device(device)
        judge = build_scorer(scorer, option or [], model, backbone, weights, where)
        for images, table in sets_to_score(words, scorer, root, size, out, console):
            score_set(images, judge, table, ScoringOptions(where, batch_size, workers), console)


@iqa_app.command("plot")
def plot_command(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Tables of one scorer.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture, a .png file.", callback=writable())] = Path(
        "quality.png"
    ),
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATTERN",
            help="Draw the images whose names match, for example gallery='*Gallery*'; may be repeated.",
        ),
    ] = None,
) -> None:
    """Draw the distributions of scores, with the threshold between low and high quality that a gate would take."""
    import numpy as np

    from facelab.adapter.gate import two_modes
    from facelab.cli.scores import described, grouped, share_of_good, shown_name
    from facelab.quality.table import ScoreTable
    from facelab.test_protocol.report.plots import plot
    from facelab.test_protocol.report.quality_chart import quality_chart

    opened = [ScoreTable(path) for path in tables]
    for other in opened[1:]:
        if other.scorer != opened[0].scorer:
            raise ConfigError(
                f"{other.path}: is of {other.scorer.identify()}, but {opened[0].path} is of "
                f"{opened[0].scorer.identify()}; draw one scorer at a time."
            )
    card = opened[0].scorer
    sets = grouped(opened, group) if group else {shown_name(table.path, card): table.values for table in opened}
    threshold, _ = two_modes(np.concatenate(list(sets.values())))
    plot([quality_chart(sets, card, threshold)], out)
    show_table(
        {
            name: f"{described(values)}, {share_of_good(values, card, threshold):.1%} good"
            for name, values in sets.items()
        }
        | {"threshold": f"{threshold:.4g}"}
    )
    typer.echo(f"The chart is in '{out}'.")
