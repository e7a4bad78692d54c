"""What `lowres_adaptation` measures of a run, and the tables and plots of all runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from lowres_arms import ARMS, Arm, Setting
from lowres_faces import CONDITIONS, Faces
from numpy.typing import NDArray
from torch.nn import functional as F

from facelab.adapter.gate import Gate
from facelab.adapter.two_spaces import join_spaces
from facelab.test_protocol.base import Embeddings, Metric, Report
from facelab.test_protocol.metrics.identification import mate_rank, search
from facelab.test_protocol.statistics.confidence import with_intervals
from facelab.test_protocol.statistics.paired import mcnemar, paired_bootstrap, right_pairs

matplotlib.use("Agg")
from matplotlib import pyplot

Array = NDArray[Any]
Runs = Mapping[str, Sequence[dict[str, Any]]]
RANKS, FAR = (1, 5, 10), 1e-3
MIXED = 0.5
SHARE = 0.7  # of the high-quality space in a perfect image; of no effect where both spaces are one
COLUMNS = {
    "low rank-1": "low rank-1",
    "low rank-5": "rank-5",
    "low rank-10": "rank-10",
    "mixed rank-1": "mixed rank-1",
    "high rank-1": "high rank-1",
    "cross TAR": "cross TAR@1e-3",
    "low-low TAR": "low-low TAR@1e-3",
    "LFW accuracy": "LFW accuracy",
}


@torch.inference_mode()
def tested_embeddings(stored: Path, gate: Gate, arm: Arm, faces: Faces) -> dict[str, Array]:
    """Unit embeddings of each tested set, (N, D) or (N, 2D), from those of two passes and the gates of the scores."""
    with np.load(stored) as kept:
        passes = {
            name: torch.from_numpy(kept[name].astype(np.float32)) for name in (*faces.tested, "train") if name in kept
        }
    if not arm.two_spaces:
        return {name: one[:, int(arm.flipped)].numpy() for name, one in passes.items()}
    images = {**faces.tested, "train": faces.train}
    joined = {
        name: join_spaces(*one.unbind(1), gate(torch.from_numpy(images[name].quality)), SHARE)
        for name, one in passes.items()
    }
    if arm.size == "average":
        joined = {name: F.normalize(torch.stack(one.chunk(2, dim=1)).sum(dim=0)) for name, one in joined.items()}
    if arm.size == "PCA":
        main = torch.linalg.eigh(joined["train"].T @ joined["train"]).eigenvectors[:, -joined["train"].shape[1] // 2 :]
        joined = {name: F.normalize(one @ main) for name, one in joined.items()}
    return {name: one.numpy() for name, one in joined.items()}


def measure(sets: Mapping[str, Array], faces: Faces) -> dict[str, Any]:
    """All numbers of a run, and the trials that tests need."""
    gallery, known, person = sets["gallery"], faces.tested["gallery"].person, faces.tested["probe"].person
    found = {name: mate_rank(search(sets[name], gallery, person, known)) for name in ("probe", *CONDITIONS)}
    report = faces.lfw.evaluate(Embeddings(sets["pairs"]))
    mates, upper = person[:, None] == known, np.triu_indices(len(person), 1)
    drawn_low = np.random.default_rng(0).random(len(person)) < MIXED
    low = {
        name: {
            **_rates("low", found[name]),
            **_rates("mixed", np.where(drawn_low, found[name], found["probe"])),
            "cross TAR": _tar(sets[name] @ gallery.T, mates),
            "low-low TAR": _tar((sets[name] @ sets[name].T)[upper], (person[:, None] == person)[upper]),
        }
        for name in CONDITIONS
    }
    return {
        **_rates("high", found["probe"]),
        "LFW accuracy": next(metric.value for metric in report.metrics if metric.name == "accuracy"),
        "conditions": low,
        "trials": {
            "person": person.tolist(),
            "ranks": {name: ranks.tolist() for name, ranks in found.items()},
            "right": "".join("01"[int(right)] for right in right_pairs(report)),
        },
    }


def _rates(name: str, ranks: Array) -> dict[str, float]:
    return {f"{name} rank-{k}": float(np.mean(ranks <= k)) for k in RANKS}


def _tar(scores: Array, same: Array) -> float:
    """Part of the pairs of one person that are accepted where `FAR` of the others are."""
    first_refused = int(FAR * (~same).sum()) + 1
    return float(np.mean(scores[same] > np.partition(scores[~same], -first_refused)[-first_refused]))


def read_runs(folder: Path, setting: Setting) -> dict[str, list[dict[str, Any]]]:
    """Finished runs of each arm, in the order of their seeds; the frozen base has one in all settings of its split."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        if run["setting"] == asdict(setting.of(run["arm"])):
            found.setdefault(run["arm"], []).append(run)
    return {arm: found[arm] for arm in ARMS if arm in found}


def low_report(runs: Sequence[dict[str, Any]], condition: str) -> Report:
    """Identification of low probes, all seeds one after the other; people are drawn with all their seeds."""
    rank = np.concatenate([run["trials"]["ranks"][condition] for run in runs])
    person = np.concatenate([run["trials"]["person"] for run in runs])
    metric = Metric("rank-1", float(np.mean(rank == 1)))
    return Report("low probes", (metric,), trials={"rank": rank, "person": person.astype(np.int32)})


def markdown(runs: Runs, condition: str) -> str:
    """Table of all arms in percent, mean ± deviation over seeds; interval by identity of the low probes."""
    heads = ["arm", "trained", "seeds", *COLUMNS.values(), "interval of low rank-1"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm, found in runs.items():
        interval = with_intervals(low_report(found, condition), draws=1000, seed=0, level=0.95).headline.interval
        shown = "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
        values = (cell(found, key, condition) for key in COLUMNS)
        trained = f"{found[0]['trained']:,}"
        lines.append(f"| {' | '.join([arm, trained, str(len(found)), *values, shown])} |")
    return "\n".join(lines) + "\n"


def cell(runs: Sequence[dict[str, Any]], key: str, condition: str = "") -> str:
    """A figure of some seeds in percent, with their deviation."""
    values = [100 * (run[key] if key in run else run["conditions"][condition][key]) for run in runs]
    digits = 2 if "LFW" in key else 1
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


BASELINES = ("single", "single, no replay", "full", "single, aligned", "frozen, flipped", "frozen")


def paired_table(runs: Runs, condition: str, others: Sequence[str] = BASELINES) -> str:
    """Differences between each arm and some others on the seeds that both have: low rank-1 and LFW decisions."""
    lines = ["| arm | against | low rank-1, points | p | LFW decisions, points | p |", "|---|---|---|---|---|---|"]
    for arm, found in runs.items():
        for other in others:
            if other != arm and other in runs and not arm.startswith("frozen"):
                sides = same_seeds(found, runs[other])
                if sides[0]:
                    cells = [*low_difference(*sides, condition), *lfw_difference(*sides)]
                    lines.append(f"| {arm} | {other} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def same_seeds(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of either arm, seed by seed; one without training, which is the same for every seed, stands for all."""
    sides = [{run["seed"]: run for run in runs} for runs in (first, second)]
    seeds = sorted(set.union(*map(set, sides)))
    for side in sides:
        if not side[next(iter(side))]["trained"]:
            side.update(dict.fromkeys(seeds, next(iter(side.values()))))
    both = [seed for seed in seeds if all(seed in side for side in sides)]
    return [sides[0][seed] for seed in both], [sides[1][seed] for seed in both]


def low_difference(first: list[dict[str, Any]], second: list[dict[str, Any]], condition: str) -> tuple[str, str]:
    """Points of rank-1 of low probes with their interval, and p, by a paired bootstrap by identity."""
    probes = paired_bootstrap(low_report(first, condition), low_report(second, condition), "rank-1")
    between = "" if probes.interval is None else " [{:+.2f}, {:+.2f}]".format(*(100 * end for end in probes.interval))
    return f"{100 * probes.difference:+.2f}{between}", f"{probes.p:.3f}"


def lfw_difference(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> tuple[str, str]:
    """So few decisions differ that draws of people would not tell a tie from a difference: McNemar's test, and p."""
    decided = [np.array(list("".join(run["trials"]["right"] for run in side))) == "1" for side in (first, second)]
    pairs = mcnemar(*decided)
    return f"{100 * pairs.difference:+.2f} ({pairs.only_first} : {pairs.only_second})", f"{pairs.p:.3f}"


def plot_rates(runs: Runs, condition: str, path: Path) -> None:
    """High, mixed and low rank-1 of all arms, one below the other; lines are deviations over seeds."""
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.36 * len(runs)), layout="constrained")
    place = np.arange(len(runs))
    for shift, name in zip((-0.28, 0.0, 0.28), ("high", "mixed", "low"), strict=True):
        key = f"{name} rank-1"
        seeds = [[100 * {**run, **run["conditions"][condition]}[key] for run in found] for found in runs.values()]
        rates = [float(np.mean(of_arm)) for of_arm in seeds]
        deviations = [float(np.std(of_arm, ddof=1)) if len(of_arm) > 1 else 0.0 for of_arm in seeds]
        bars = axes.barh(place + shift, rates, 0.26, label=name, xerr=deviations, error_kw={"elinewidth": 0.8})
        axes.bar_label(bars, fmt="%.1f", fontsize=6, padding=2)
    axes.set_yticks(place, list(runs), fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set(xlabel="rank-1, %", xlim=(0, 108))
    figure.legend(*axes.get_legend_handles_labels(), title="probes", loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def plot_embeddings(files: Mapping[str, Path], condition: str, path: Path, people: int = 8) -> None:
    """Gallery (squares) and low probes (dots) of some test people on the two main axes of the low space.

    Args:
        files: For each panel's title the ``.npz`` of a run.
        condition: How the probes are made.
        path: The PNG.
        people: How many to show.
    """
    figure, panels = pyplot.subplots(1, len(files), figsize=(4.2 * len(files), 3.8), squeeze=False)
    for axes, (title, file) in zip(panels[0], files.items(), strict=True):
        with np.load(file) as stored:
            shown = {name: stored[name] for name in ("gallery", "gallery_person", "probe_person")}
            shown["probe"] = stored[condition]
        numbers = np.unique(shown["probe_person"])[:people]
        parts = {side: np.isin(shown[f"{side}_person"], numbers) for side in ("gallery", "probe")}
        both = np.concatenate([shown[side][rows, 0].astype(np.float64) for side, rows in parts.items()])
        flat = both @ np.linalg.svd(both - both.mean(axis=0), full_matrices=False)[2][:2].T
        count = int(parts["gallery"].sum())
        for side, rows, mark in (("gallery", flat[:count], "s"), ("probe", flat[count:], "o")):
            colour = np.searchsorted(numbers, shown[f"{side}_person"][parts[side]])
            axes.scatter(*rows.T, c=colour, cmap="tab10", vmin=0, vmax=9, marker=mark, s=60 if mark == "s" else 14)
        axes.set(title=title, xlabel="first main axis", ylabel="second main axis", aspect="equal")
    figure.savefig(path, dpi=90, bbox_inches="tight")
    pyplot.close(figure)
