"""What `lowres_adaptation` measures of a run, and the tables and plots of all runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from lowres_faces import TESTED, Faces
from numpy.typing import NDArray

from facelab.adapter.gate import Gate
from facelab.adapter.two_spaces import join_spaces
from facelab.test_protocol.base import Embeddings, Metric, Report
from facelab.test_protocol.metrics import metrics
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
def joined_sets(stored: Path, gate: Gate, faces: Faces) -> dict[str, Array]:
    """Unit embeddings of each tested set, (N, 2D), from those in both spaces and the gates of the scores."""
    with np.load(stored) as kept:
        spaces = {name: torch.from_numpy(kept[name].astype(np.float32)) for name in TESTED}
    return {
        name: join_spaces(*one.unbind(1), gate(torch.from_numpy(getattr(faces, name).quality)), SHARE).numpy()
        for name, one in spaces.items()
    }


def measure(sets: Mapping[str, Array], faces: Faces) -> dict[str, Any]:
    """All numbers of a run, and the trials that tests need."""
    gallery, probe, person = sets["gallery"], sets["probe"], faces.probe.person
    half = len(person) // 2
    place = mate_rank(search(probe, gallery, person, faces.gallery.person))
    drawn_low = np.random.default_rng(0).random(half) < MIXED
    mixed = np.where(drawn_low, place[half:], place[:half])
    found = {"high": place[:half], "low": place[half:], "mixed": mixed}
    rates = {f"{name} rank-{k}": float(np.mean(ranks <= k)) for name, ranks in found.items() for k in RANKS}
    low, people, upper = probe[half:], person[half:], np.triu_indices(half, 1)
    report = faces.lfw.evaluate(Embeddings(sets["pairs"]))
    values = {metric.name: metric.value for metric in report.metrics}
    return {
        **rates,
        "cross TAR": _tar(low @ gallery.T, people[:, None] == faces.gallery.person),
        "low-low TAR": _tar((low @ low.T)[upper], (people[:, None] == people)[upper]),
        "LFW accuracy": values["accuracy"],
        "trials": {
            "person": people.tolist(),
            **{name: ranks.tolist() for name, ranks in found.items()},
            "margin": (report.trials["score"] - np.float32(values["threshold"])).round(6).tolist(),
            **{name: report.trials[name].tolist() for name in ("same", "left", "right")},
        },
    }


def _tar(scores: Array, same: Array) -> float:
    return metrics.tar_at_far(metrics.roc(scores.ravel(), same.ravel()), [FAR])[0].tar


def read_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Finished runs of each arm, in the order of their seeds."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["arm"], []).append(run)
    return runs


def low_report(runs: Sequence[dict[str, Any]]) -> Report:
    """Identification of low probes, all seeds one after the other; people are drawn with all their seeds."""
    rank = np.concatenate([run["trials"]["low"] for run in runs])
    person = np.concatenate([run["trials"]["person"] for run in runs])
    metric = Metric("rank-1", float(np.mean(rank == 1)))
    return Report("low probes", (metric,), trials={"rank": rank, "person": person.astype(np.int32)})


def lfw_report(runs: Sequence[dict[str, Any]]) -> Report:
    """LFW pairs, all seeds one after the other; scores are above or below each run's own threshold."""
    score = np.concatenate([run["trials"]["margin"] for run in runs]).astype(np.float32)
    trials = {name: np.concatenate([run["trials"][name] for run in runs]) for name in ("same", "left", "right")}
    accuracy = float(np.mean([run["LFW accuracy"] for run in runs]))
    metric = Metric("accuracy", accuracy), Metric("threshold", 0.0, unit="score")
    return Report("LFW", metric, trials={"score": score, **trials})


def markdown(runs: Runs) -> str:
    """Table of all arms in percent, mean ± deviation over seeds; interval by identity of the low probes."""
    heads = ["arm", "trained", "seeds", *COLUMNS.values(), "interval of low rank-1"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm, found in runs.items():
        interval = with_intervals(low_report(found), draws=1000, seed=0, level=0.95).headline.interval
        shown = "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
        cells = [arm, f"{found[0]['trained']:,}", str(len(found)), *(_cell(found, key) for key in COLUMNS), shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[dict[str, Any]], key: str) -> str:
    values = [100 * run[key] for run in runs]
    digits = 2 if "LFW" in key else 1
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


BASELINES = ("single", "single, no replay", "full", "single, aligned", "frozen")


def paired_table(runs: Runs, others: Sequence[str] = BASELINES) -> str:
    """Differences between each arm and some others on the seeds that both have: low rank-1 and LFW decisions."""
    lines = ["| arm | against | low rank-1, points | p | LFW decisions, points | p |", "|---|---|---|---|---|---|"]
    for arm, found in runs.items():
        for other in others:
            if other == arm or other not in runs or arm in ("frozen",):
                continue
            by_seed = {run["seed"]: run for run in found}, {run["seed"]: run for run in runs[other]}
            seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
            if seeds:
                cells = _differences(*([side[seed] for seed in seeds] for side in by_seed))
                lines.append(f"| {arm} | {other} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _differences(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    """LFW by McNemar's test: so few decisions differ that draws of people would not tell a tie from a difference."""
    probes = paired_bootstrap(low_report(first), low_report(second), "rank-1")
    between = "" if probes.interval is None else " [{:+.2f}, {:+.2f}]".format(*(100 * end for end in probes.interval))
    pairs = mcnemar(right_pairs(lfw_report(first)), right_pairs(lfw_report(second)))
    decided = f"{100 * pairs.difference:+.2f} ({pairs.only_first} : {pairs.only_second})"
    return [f"{100 * probes.difference:+.2f}{between}", f"{probes.p:.3f}", decided, f"{pairs.p:.3f}"]


def plot_rates(runs: Runs, path: Path) -> None:
    """High, mixed and low rank-1 of all arms, one below the other; lines are deviations over seeds."""
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.36 * len(runs)), layout="constrained")
    place = np.arange(len(runs))
    for shift, name in zip((-0.28, 0.0, 0.28), ("high", "mixed", "low"), strict=True):
        seeds = [[100 * run[f"{name} rank-1"] for run in found] for found in runs.values()]
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


def plot_embeddings(files: Mapping[str, Path], path: Path, people: int = 8) -> None:
    """Gallery (squares) and low probes (dots) of some test people on the two main axes of the low space.

    Args:
        files: For each panel's title the ``.npz`` of a run.
        path: The PNG.
        people: How many to show.
    """
    figure, panels = pyplot.subplots(1, len(files), figsize=(4.2 * len(files), 3.8), squeeze=False)
    for axes, (title, file) in zip(panels[0], files.items(), strict=True):
        with np.load(file) as stored:
            shown = {name: stored[name] for name in ("gallery", "probe", "gallery_person", "probe_person")}
        low = slice(len(shown["probe"]) // 2, None)
        shown |= {name: shown[name][low] for name in ("probe", "probe_person")}
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
