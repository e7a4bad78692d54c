"""``facelab iqa``: score the quality of images once, and draw how it is distributed."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from facelab import distributed
from facelab.cli_data import RootOption, opened_source, parsed_size, show_table
from facelab.errors import ConfigError, DataError
from facelab.progress_bar import counted_bars
from facelab.scorer_card import ScorerCard
from facelab.scores import ScoreTable, write_scores

if TYPE_CHECKING:
    import torch

    from facelab.data.base import ImageSet
    from facelab.iqa.base import ScoredSet, Scorer, Work

iqa_app = typer.Typer(name="iqa", help="Score the quality of images.", no_args_is_help=True, rich_markup_mode="rich")

SHOWN = 10  # unreadable images that are printed
NETWORK = "network"  # the argument of scorers that look through a recognition network


@iqa_app.command("score")
def score_command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA | PROTOCOL.OPTION=VALUE...",
            help="A training set (folder or .tar of people, list, .rec file, packed folder, YAML), or protocols as "
            "`facelab test` takes them: LFW.root=lfw112.tar LFW.pairs=pairs.txt, or data_root=FOLDER.",
        ),
    ],
    scorer: Annotated[str, typer.Option("--scorer", "-s", help="See: facelab list scorers.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the scorer; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The table; a folder for protocols. By default beside the data.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Run or checkpoint, for FeatureNorm.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Or a backbone of the catalogue, with --weights.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A safetensors file for --backbone.")] = None,
    root: RootOption = None,
    size: Annotated[
        str | None, typer.Option(help="Bring all images to this size first: 112, or rows x columns as in 112x96.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read and score; 0 for one per core.")] = 0,
) -> None:
    """Score every image once; writes one table for the data, or one for each protocol.

    Started by torchrun, its processes share the images.
    """
    from facelab.face_model import pick_device
    from facelab.iqa.base import Work

    distributed.initialise()
    try:
        console = Console(soft_wrap=True, quiet=not distributed.is_main())
        where = pick_device(device)
        judge = _build(scorer, option or [], model, backbone, weights, where)
        for images, table in _sets(words, scorer, root, size, out, console):
            _score(images, judge, table, Work(where, batch_size, workers), console)
    finally:
        distributed.shutdown()


@iqa_app.command("plot")
def plot_command(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Tables of one scorer.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture, a .png file.")] = Path("quality.png"),
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATTERN",
            help="Draw the images whose names match, for example gallery='*Gallery*'; may be repeated.",
        ),
    ] = None,
) -> None:
    """Draw the distributions of scores, with the threshold between low and high quality that a gate would take."""
    from facelab.adapter.gate import two_modes
    from facelab.test_protocol.plots import plot
    from facelab.test_protocol.quality_chart import quality_chart

    opened = [ScoreTable(path) for path in tables]
    for other in opened[1:]:
        if other.scorer != opened[0].scorer:
            raise ConfigError(
                f"{other.path}: is of {other.scorer.identify()}, but {opened[0].path} is of "
                f"{opened[0].scorer.identify()}; draw one scorer at a time."
            )
    card = opened[0].scorer
    sets = _grouped(opened, group) if group else {_shown_name(table.path, card): table.values for table in opened}
    threshold, _ = two_modes(np.concatenate(list(sets.values())))
    plot([quality_chart(sets, card, threshold)], out)
    show_table(
        {name: f"{_described(values)}, {_good(values, card, threshold):.1%} good" for name, values in sets.items()}
        | {"threshold": f"{threshold:.4g}"}
    )
    typer.echo(f"The chart is in '{out}'.")


def _build(
    name: str, options: Sequence[str], model: str | None, backbone: str | None, weights: Path | None,
    device: "torch.device",
) -> "Scorer":  # fmt: skip
    from facelab.cli_evaluate import open_models
    from facelab.config import parse_overrides
    from facelab.iqa.base import SCORERS

    needs_network = NETWORK in SCORERS.parameters(name)
    named = [] if model is None else [model]
    if needs_network and not named and backbone is None:
        raise ConfigError(f"{name} needs a network: --model RUN, or --backbone NAME with --weights FILE.")
    if not needs_network and (named or backbone is not None or weights is not None):
        raise ConfigError(f"{name} looks at pixels only; leave --model, --backbone and --weights out.")
    supplied = {}
    if needs_network:
        (found,) = open_models(named, "last", backbone, weights, str(device))
        supplied[NETWORK] = found.network
    return SCORERS.build(name, parse_overrides(options), **supplied)


def _sets(
    words: Sequence[str], scorer: str, root: Path | None, size: str | None, out: Path | None, console: Console
) -> "list[tuple[ImageSet, Path]]":
    """What is to be scored, with the table for each."""
    from facelab.cli_protocols import open_protocols
    from facelab.data.resized import ResizedImages

    first = words[0]
    if "=" not in first or Path(first).exists():
        if len(words) > 1:
            raise ConfigError(f"'{words[1]}': score one training set at a time.")
        table = out or _beside(Path(first)) / f"{_file_name(first)}.{scorer}.scores.csv"
        return [(opened_source(first, root, size), table)]
    if root is not None:
        raise ConfigError("--root is for lists of images; protocols have their own root.")
    found = []
    for name, protocol in open_protocols(words, [], [], console):
        images = protocol.images if size is None else ResizedImages(protocol.images, *parsed_size(size))
        found.append((images, (out or _folder_of(name, words)) / f"{name}.{scorer}.scores.csv"))
    return found


def _beside(data: Path) -> Path:
    return data.absolute().parent if data.exists() else Path()


def _file_name(data: str) -> str:
    """Name of a path; of YAML, the name of its source."""
    return Path(data).absolute().name if Path(data).exists() else data.strip("{ ").partition(":")[0]


def _folder_of(protocol: str, words: Sequence[str]) -> Path:
    """Where the first file that a protocol is given lies, or the data root; else here."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "data_root":
            return Path(value)
        if key.partition(".")[0] == protocol and Path(value).exists():
            return _beside(Path(value))
    return Path()


class _Checked:
    """Images of which whatever cannot be read is a `CorruptImage`."""

    def __init__(self, images: "ImageSet") -> None:
        self._images = images
        self.name, self.fingerprint = images.name, images.fingerprint

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> NDArray[np.uint8]:
        from facelab.data.batch_reader import read_checked

        return read_checked(self._images, index)


def _score(images: "ImageSet", scorer: "Scorer", table: Path, work: "Work", console: Console) -> None:
    from facelab.iqa.base import PixelScorer
    from facelab.iqa.shares import score_in_shares
    from facelab.training_mode.kept_scores import score_once

    if distributed.broadcast_object(_is_scored(images, scorer.card, table)):
        console.print(f"'{table}' has these scores already; nothing was scored.", markup=False, highlight=False)
        return
    with counted_bars(console) as show:
        checked, progress = _Checked(images), lambda done, total: show(scorer.card.name, done, total)
        if isinstance(scorer, PixelScorer):
            _, scored = score_once(scorer, checked, work, progress)
        else:
            scored = score_in_shares(scorer, checked, work, progress)
    distributed.together(lambda: _report(images, scorer.card, table, scored) if distributed.is_main() else None)


def _report(images: "ImageSet", card: ScorerCard, table: Path, scored: "ScoredSet") -> None:
    """Write the table, and say what is in it."""
    write_scores(table, images, scored.values, card)
    for _, reason in scored.failed[:SHOWN]:
        typer.echo(reason)
    if len(scored.failed) > SHOWN:
        typer.echo(f"and {len(scored.failed) - SHOWN:,} more images that cannot be read; they have no score.")
    show_table(
        {
            "table": table,
            "scorer": card.describe(),
            "images": len(images),
            "unreadable": len(scored.failed),
            "scores": _described(scored.values),
        }
    )


def _is_scored(images: "ImageSet", card: ScorerCard, table: Path) -> bool:
    if not table.is_file():
        return False
    try:
        there = ScoreTable(table)
    except DataError:
        return False  # damaged, or something else: it is made anew
    same = there.scorer == card and there.image_set == images.fingerprint()
    return same and len(there.values) == len(images) and bool(np.isfinite(there.values).all())


def _grouped(tables: Sequence[ScoreTable], groups: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
    """Scores of the images whose names match a pattern, over all tables."""
    names = [name for table in tables for name in table.names()]
    values = np.concatenate([table.values for table in tables])
    found = {}
    for word in groups:
        name, given, pattern = word.partition("=")
        if not given:
            raise ConfigError(f"--group is '{word}', but must be NAME=PATTERN such as gallery='*Gallery*'.")
        chosen = np.array([fnmatchcase(image, pattern) for image in names], bool)
        if not chosen.any():
            raise DataError(f"no image is called like '{pattern}'; the first is '{names[0]}'.")
        found[name] = values[chosen]
    return found


def _shown_name(table: Path, scorer: ScorerCard) -> str:
    return table.name.removesuffix(".csv").removesuffix(".scores").removesuffix(f".{scorer.name}")


def _good(values: NDArray[np.float32], scorer: ScorerCard, threshold: float) -> float:
    """Share of the scores on the good side of a threshold."""
    known = values[np.isfinite(values)]
    return float(np.mean(known > threshold if scorer.higher_is_better else known < threshold)) if len(known) else 0.0


def _described(values: NDArray[np.float32]) -> str:
    """Median and quartiles."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "none"
    low, median, high = np.percentile(known, [25, 50, 75])
    return f"median {median:.4g}, half of them from {low:.4g} to {high:.4g}"
