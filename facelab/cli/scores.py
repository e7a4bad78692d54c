"""What ``facelab iqa`` does: its scorer, the sets and their tables, and what is said of the scores."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from facelab import distributed
from facelab.cli.data import opened_source, parsed_size, show_table
from facelab.errors import ConfigError, DataError
from facelab.progress_bar import counted_bars
from facelab.quality.card import ScorerCard
from facelab.quality.table import ScoreTable, write_scores
from facelab.weights.whole_file import require_writable

if TYPE_CHECKING:
    import torch

    from facelab.data.base import ImageSet
    from facelab.iqa.base import Scorer
    from facelab.iqa.scored_set import ScoredSet, ScoringOptions

SHOWN = 10  # unreadable images that are printed
NETWORK = "network"  # the argument of scorers that look through a recognition network


def build_scorer(
    name: str, options: Sequence[str], model: str | None, backbone: str | None, weights: Path | None,
    device: "torch.device",
) -> "Scorer":  # fmt: skip
    """The scorer that a command line names, with the network that it looks through."""
    from facelab.cli.evaluate import open_models
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


def sets_to_score(
    words: Sequence[str], scorer: str, root: Path | None, size: str | None, out: Path | None, console: Console
) -> "list[tuple[ImageSet, Path]]":
    """What is to be scored, with the table for each."""
    from facelab.cli.protocols import open_protocols
    from facelab.data.sources.resized import ResizedImages

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
        self.name, self.fingerprint, self.revision = images.name, images.fingerprint, images.revision

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> NDArray[np.uint8]:
        from facelab.data.loading.batch_reader import read_checked

        return read_checked(self._images, index)


def score_set(images: "ImageSet", scorer: "Scorer", table: Path, options: "ScoringOptions", console: Console) -> None:
    """Score a set into its table, unless these scores are there already."""
    from facelab.iqa.base import PixelScorer
    from facelab.iqa.shares import score_in_shares
    from facelab.model.kept_scores import score_once

    # One answer for all processes: where they disagreed, some would wait for scores that the others do not make.
    if distributed.broadcast_object(_is_scored(images, scorer.card, table)):
        console.print(f"'{table}' has these scores already; nothing was scored.", markup=False, highlight=False)
        return
    distributed.together(lambda: require_writable(table) if distributed.is_main() else None)
    with counted_bars(console) as show:
        checked, progress = _Checked(images), lambda done, total: show(scorer.card.name, done, total)
        if isinstance(scorer, PixelScorer):
            _, scored = score_once(scorer, checked, options, progress)
        else:
            scored = score_in_shares(scorer, checked, options, progress)
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
            "scores": described(scored.values),
        }
    )


def _is_scored(images: "ImageSet", card: ScorerCard, table: Path) -> bool:
    if not table.is_file():
        return False
    try:
        there = ScoreTable(table)
    except DataError:
        return False  # damaged, or something else: it is made anew
    same = there.scorer == card and there.revision == images.revision()
    return same and len(there.values) == len(images) and bool(np.isfinite(there.values).all())


def grouped(tables: Sequence[ScoreTable], groups: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
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


def shown_name(table: Path, scorer: ScorerCard) -> str:
    """Name of a table without its endings."""
    return table.name.removesuffix(".csv").removesuffix(".scores").removesuffix(f".{scorer.name}")


def share_of_good(values: NDArray[np.float32], scorer: ScorerCard, threshold: float) -> float:
    """Share of the scores on the good side of a threshold."""
    known = values[np.isfinite(values)]
    return float(np.mean(known > threshold if scorer.higher_is_better else known < threshold)) if len(known) else 0.0


def described(values: NDArray[np.float32]) -> str:
    """Median and quartiles."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "none"
    low, median, high = np.percentile(known, [25, 50, 75])
    return f"median {median:.4g}, half of them from {low:.4g} to {high:.4g}"
