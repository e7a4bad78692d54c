"""What `heads` and `backbones` share: rows times seeds on the same faces as one study, and one table of all runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import torch
import typer
from paired_arms import paired_table
from rich.console import Console

from facelab.cli.compare import compare_command
from facelab.config import Tree
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import one_of
from facelab.run.study import make_study, run_study
from facelab.test_protocol.report.report_store import JSON, read_reports
from facelab.weights.whole_file import write_whole

matplotlib.use("Agg")
from matplotlib import pyplot

Seeds = Annotated[int, typer.Option(min=1, help="Seeds 0, 1 … of each row.")]
Steps = Annotated[int, typer.Option(min=1, help="Updates of a run; rounded up to whole epochs.")]
DataName = Annotated[str, typer.Option("--data", help="synthetic, or lfw.")]
Shared = Annotated[Path, typer.Option(help="Folder with data/faces, for lfw.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16 where the processor has it.")]
Threads = Annotated[int, typer.Option(help="Cores to use.")]

SIZE, BATCH = 64, 64
PEOPLE, PER_PERSON, MIN_IMAGES = 200, 16, 5
SOURCES = ("synthetic", "lfw")


@dataclass(frozen=True)
class Faces:
    """What all runs of a study train and are tested on.

    Attributes:
        name: Names the folder of the study.
        images: Training images.
        data: The source, as settings of a run.
        protocols: The tests, as settings of a run.
        columns: Metrics of the table; rows are sorted by the first.
    """

    name: str
    images: int
    data: Tree
    protocols: Tree
    columns: tuple[str, ...]


def open_faces(name: str, shared: Path, out: Path) -> Faces:
    """The faces of a name.

    Args:
        name: ``synthetic`` draws 200 people with 16 images and tests 200 others; ``lfw`` trains on the people with five
            or more images and tests the pairs of LFW that show none of them.
        shared: Folder with ``data/faces/lfw112.tar`` and ``data/faces/lfw_pairs.txt``.
        out: Where ``lfw`` writes who trains.

    Raises:
        FacelabError: If the name is unknown, or a file is missing.
    """
    if one_of("data", name, SOURCES) == "synthetic":
        source: Tree = {"SyntheticFaces": {"identities": PEOPLE, "per_identity": PER_PERSON}}
        tested = {"identities": 200, "per_identity": 5, "pairs": 4000, "resolution": [8]}
        columns = ("accuracy", "TAR@FAR=1e-2", "accuracy@8px")
        return Faces(name, PEOPLE * PER_PERSON, {"source": source}, {"drawn": {"SyntheticPairs": tested}}, columns)
    root, pairs = (str(shared / "data" / "faces" / file) for file in ("lfw112.tar", "lfw_pairs.txt"))
    trained = ImageFolder(Path(root), min_images=MIN_IMAGES)
    people = write_whole(out / "lfw-people.txt", "".join(f"{person}\n" for person in trained.people))
    folder: Tree = {"source": {"ImageFolder": {"root": root, "min_images": MIN_IMAGES}}, "resize": True}
    lfw = {"LFW": {"root": root, "pairs": pairs, "exclude": str(people)}}
    return Faces(name, len(trained.labels), folder, {"LFW": lfw}, ("accuracy", "TAR@FAR=1e-2"))


def run_rows(
    rows: Mapping[str, Tree],
    common: Tree,
    faces: Faces,
    *,
    seeds: int,
    steps: int,
    out: Path,
    precision: str,
    threads: int,
    batch: int = BATCH,
    against: str | None = None,
) -> None:
    """Train what is not finished, and write the table of everything that is.

    Finished runs are kept, and one that was interrupted goes on from its last epoch. The first seed of all rows comes
    before the second of any. Runs of other faces, lengths or precisions lie in other folders.

    Args:
        rows: What each row changes in the settings of a run.
        common: What all rows change.
        faces: The data.
        seeds: Runs of each row.
        steps: Updates of each run.
        out: Folder of all studies of the program.
        precision: Of training and test.
        threads: Cores to use.
        batch: Images of an update.
        against: Row that the others are compared with, pair by pair.

    Raises:
        FacelabError: If anything cannot work.
        typer.Exit: If a signal stops it; the code is 128 and the signal's number.
    """
    torch.set_num_threads(threads)
    epochs = math.ceil(steps / (faces.images // batch))
    folder = out / f"{faces.name}-{epochs * (faces.images // batch)}-{precision}"
    variants = {f"{row}-{seed}": {**changes, "seed": seed} for seed in range(seeds) for row, changes in rows.items()}
    tree = {**settings(faces, epochs, precision, batch), **common, "name": folder.name, "variants": variants}
    stopped, _ = run_study(make_study(tree, folder, folder.name), Console())
    if finished_runs(folder):
        write_table(folder, faces, against)
    if stopped:
        raise typer.Exit(128 + stopped)


def settings(faces: Faces, epochs: int, precision: str, batch: int = BATCH) -> Tree:
    """The settings that all runs share: one recipe, which is tuned for no row."""
    return {
        "data": {**faces.data, "size": SIZE, "workers": 1},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {"epochs": epochs, "batch_size": batch, "precision": precision, "clip_norm": 5, "log_every": 50},
        "evaluation": {"every_epochs": 0, "precision": precision, "protocols": faces.protocols},
        "tensorboard": False,
    }


def finished_runs(folder: Path) -> dict[str, list[Path]]:
    """Folders of the finished runs of each row, in the order of their seeds."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.glob(f"*/{JSON}"):
        row, dash, seed = path.parent.name.rpartition("-")
        if dash and seed.isdecimal():
            found.setdefault(row, []).append((int(seed), path.parent))
    return {row: [path for _, path in sorted(runs)] for row, runs in sorted(found.items())}


def write_table(folder: Path, faces: Faces, against: str | None = None) -> None:
    """Write what ``facelab compare`` gives for all finished runs into ``comparison``, best row first, and a plot.

    Rows of several runs show mean and deviation. Where there is one of each, tests mark what is within noise.
    ``paired.md`` compares all rows with one of them, over all seeds, if that one is finished.
    """
    runs = finished_runs(folder)
    if against in runs:
        print(paired := paired_table(runs, against))
        write_whole(folder / "comparison" / "paired.md", f"{paired}\n")
    values = {row: [_value(path, faces.columns[0]) for path in paths] for row, paths in runs.items()}
    ordered = sorted(runs, key=lambda row: -math.fsum(values[row]) / len(values[row]))
    several = [row for row in ordered if len(runs[row]) > 1]
    single = [f"{row}={runs[row][0]}" for row in ordered if row not in several]
    compare_command(
        [str(path) for row in several for path in runs[row]] + single,
        metric=list(faces.columns),
        group=[f"{row}={','.join(path.name for path in runs[row])}" for row in several],
        draws=0 if several else 1000,
        out=folder / "comparison",
    )
    plot_rows({row: values[row] for row in ordered}, f"{faces.columns[0]}, %", folder / "comparison" / "rows.png")


def _value(run: Path, metric: str) -> float:
    """A metric of a run's first protocol."""
    ((report, *_),) = read_reports(run).values()
    return float(next(one.value for one in report.metrics if one.name == metric) or 0.0)


def plot_rows(values: Mapping[str, Sequence[float]], label: str, path: Path) -> None:
    """Every run as a dot and every row's mean as a line, best row on top.

    Args:
        values: Value of each run, as a fraction, by row.
        label: Of the axis.
        path: The PNG.
    """
    figure, axes = pyplot.subplots(figsize=(7, 0.8 + 0.24 * len(values)), layout="constrained")
    style: dict[str, Any] = {"zorder": 3}
    for place, runs in enumerate(values.values()):
        percent = [100 * value for value in runs]
        axes.plot(percent, [place] * len(percent), "o", markersize=4, color="tab:blue", alpha=0.7, **style)
        axes.plot([math.fsum(percent) / len(percent)], [place], "|", markersize=12, color="black", **style)
    axes.set_yticks(range(len(values)), list(values), fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.4)
    axes.set_xlabel(label)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
