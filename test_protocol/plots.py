"""Plots as PNG, drawn without a screen: ROC, score histogram, training curves."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import Report
from facelab.test_protocol.whole_file import write_whole

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")  # told apart by everyone
PANELS = (("loss", "loss"), ("accuracy", "training accuracy [%]"), ("lr", "learning rate"))
DOTS_PER_INCH = 130


def plot_roc(reports: Mapping[str, Report], png: Path) -> Path:
    """True against false accept rate of some models on one protocol, false accepts on a logarithmic axis.

    Args:
        reports: Report of each model, all of one protocol; those without a curve are left out.
        png: File to write.

    Raises:
        DataError: If none has a curve, or the file cannot be written.
    """
    drawn = {model: report for model, report in reports.items() if "far" in report.curves}
    if not drawn:
        raise DataError("no report has a ROC curve: it needs both same and different pairs.")
    figure, axes = _figure(6.4, 4.6)
    lowest = min(_least_far(report) for report in drawn.values())
    for (model, report), colour in zip(drawn.items(), _colours(len(drawn)), strict=True):
        far, tar = report.curves["far"], report.curves["tar"]
        start = int(np.flatnonzero(far == 0)[-1])  # all that is accepted without a false accept
        axes.plot(
            np.maximum(far[start:], lowest),
            100 * tar[start:],
            color=colour,
            label=model,
            drawstyle="steps-post",
            linewidth=1.8,
        )
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1.0)
    floor = min(100 * float(np.interp(lowest, r.curves["far"], r.curves["tar"])) for r in drawn.values())
    axes.set_ylim(max(0.0, math.floor((floor - 2) / 10) * 10), 100.5)
    axes.set_xlabel("false accept rate")
    axes.set_ylabel("true accept rate [%]")
    axes.set_title(f"ROC on {next(iter(drawn.values())).protocol}", loc="left")
    axes.legend(loc="lower right", frameon=False)
    return _save(figure, png)


def plot_scores(report: Report, png: Path) -> Path:
    """Histogram of the scores of same and of different pairs, with the threshold between them.

    Raises:
        DataError: If the report has no scores, or the file cannot be written.
    """
    if "score_edges" not in report.curves:
        raise DataError(f"the report on {report.protocol} has no score histogram.")
    figure, axes = _figure(6.4, 3.8)
    edges = report.curves["score_edges"]
    for name, colour in (("different", COLOURS[1]), ("same", COLOURS[0])):
        counts = report.curves[f"{name}_count"]
        if counts.sum():
            share = 100 * counts / counts.sum()
            axes.stairs(share, edges, fill=True, alpha=0.45, color=colour, label=f"{name} pairs ({counts.sum():,.0f})")
            axes.stairs(share, edges, color=colour, linewidth=1.2)
    threshold = next((m.value for m in report.metrics if m.name == "threshold"), None)
    if threshold is not None:
        axes.axvline(threshold, color="#444444", linestyle="--", linewidth=1.2, label=f"threshold {threshold:.3f}")
    axes.set_xlim(*_shown_range(report))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("share of the pairs [%]")
    axes.set_title(f"scores on {report.protocol}", loc="left")
    axes.legend(frameon=False, fontsize=9)
    return _save(figure, png)


def plot_training(jsonl: Path, png: Path) -> Path:
    """Loss, training accuracy, learning rate and evaluation results over the updates of a run.

    Args:
        jsonl: The run's ``metrics.jsonl``: one object a line with ``update`` and numbers by name. Names with a ``/``
            are results of protocols. A last line that a killed run left unfinished is passed over.
        png: File to write.

    Raises:
        DataError: If the file is missing or has nothing to draw, or the picture cannot be written.
    """
    curves = read_curves(jsonl)
    panels = [(title, {name: curves[name]}) for name, title in PANELS if name in curves]
    results = {name: curve for name, curve in curves.items() if "/" in name}
    if results:
        panels.append(("evaluation [%]", results))
    if not panels:
        raise DataError(f"{jsonl}: there is nothing to draw.")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = _figure(5.2 * columns, 3.2 * rows, rows, columns)
    flat = np.atleast_1d(axes).ravel()
    last = max(updates[-1] for updates, _ in curves.values())
    for place, (title, lines) in zip(flat, panels, strict=False):
        _panel(place, title, lines)
        place.set_xlim(0, 1.02 * last)
    for empty in flat[len(panels) :]:
        empty.set_visible(False)
    return _save(figure, png)


def read_curves(jsonl: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Updates and values of every number in a ``metrics.jsonl``, by name.

    Raises:
        DataError: If the file is missing, or a line other than the last is not a JSON object with an ``update``.
    """
    if not jsonl.is_file():
        raise DataError(f"{jsonl}: there is no such file.")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    lines = jsonl.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            update = float(values.pop("update"))
        except (ValueError, KeyError, AttributeError, TypeError):
            if number == len(lines):
                break
            raise DataError(f"{jsonl}:{number}: is not a JSON object with an update.") from None
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                updates, numbers = curves.setdefault(name, ([], []))
                updates.append(update)
                numbers.append(float(value))
    return curves


def _panel(axes: Any, title: str, lines: Mapping[str, tuple[list[float], list[float]]]) -> None:
    scale = 100.0 if title.endswith("[%]") else 1.0
    for (name, (updates, values)), colour in zip(lines.items(), _colours(len(lines)), strict=True):
        marker = "o" if len(updates) < 30 else None
        axes.plot(updates, scale * np.array(values), color=colour, label=name, marker=marker, markersize=3.5)
    axes.set_title(title, loc="left")
    axes.set_xlabel("update")
    if title == "loss":
        axes.set_ylim(bottom=0)
    if len(lines) > 1 or "/" in next(iter(lines)):
        axes.legend(frameon=False, fontsize=8)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns)
    for place in np.atleast_1d(axes).ravel():
        place.grid(color="#dddddd", linewidth=0.7)
        place.set_axisbelow(True)
        place.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _colours(count: int) -> Sequence[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _least_far(report: Report) -> float:
    """Where a logarithmic axis begins: one false accept among the different pairs, rounded down to a power of ten."""
    positive = report.curves["far"][report.curves["far"] > 0]
    return float(10.0 ** math.floor(math.log10(float(positive.min()))))


def _shown_range(report: Report) -> tuple[float, float]:
    edges = report.curves["score_edges"]
    used = np.flatnonzero(report.curves["same_count"] + report.curves["different_count"])
    low, high = edges[max(0, used[0] - 2)], edges[min(len(edges) - 1, used[-1] + 3)]
    return float(low), float(high)


def _save(figure: Any, png: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)  # type: ignore[no-untyped-call]
    return write_whole(png, content.getvalue())
