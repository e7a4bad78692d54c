"""What the curves of reports show, as charts that the PNG plots and the page draw alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facelab.test_protocol.base import Report

Floats = NDArray[np.float64]
Shape = Literal["line", "steps", "bars"]


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        name: Of the model, or of what the curve shows.
        x: Ascending, (N,); for ``bars`` the N + 1 edges.
        y: (N,).
        threshold: Score at each point, (N,), where there is one.
    """

    name: str
    x: Floats
    y: Floats
    threshold: Floats | None = None


@dataclass(frozen=True)
class Chart:
    """Some curves with one pair of axes.

    Attributes:
        kind: For file names: ``roc``, ``det``, ``cmc``, ``reject``, ``scores``, ``quality`` or ``training``.
        title: Above the chart.
        x_label: With unit.
        y_label: With unit.
        lines: The curves.
        x_range: (low, high).
        y_range: (low, high).
        log_x: Whether the axis is logarithmic.
        log_y: The same.
        shape: ``steps`` keep a value until the next point, ``bars`` are histograms.
        marks: Vertical lines: label and place.
    """

    kind: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_x: bool = False
    log_y: bool = False
    shape: Shape = "line"
    marks: tuple[tuple[str, float], ...] = ()


def charts_of(protocol: str, reports: Mapping[str, Report]) -> list[Chart]:
    """Every chart that the reports of some models on one protocol have curves for."""
    shared: tuple[Callable[[str, Mapping[str, Report]], Chart | None], ...] = (roc, det, cmc, error_reject)
    found = [make(protocol, reports) for make in shared]
    found += [scores(report, f"{protocol}: scores of {model}") for model, report in reports.items()]
    return [chart for chart in found if chart is not None]


def roc(protocol: str, reports: Mapping[str, Report]) -> Chart | None:
    """True against false accept rate, false accepts on a logarithmic axis; None if no report has the curve."""
    lines = _accept_lines(reports)
    if not lines:
        return None
    lowest = lines[0].x[0]
    low = _round_floor(lines)
    title, axis = f"{protocol}: ROC", "true accept rate [%]"
    return Chart("roc", title, "false accept rate", axis, lines, (lowest, 1.0), (low, 100.0), log_x=True, shape="steps")


def det(protocol: str, reports: Mapping[str, Report]) -> Chart | None:
    """False reject against false accept rate, both logarithmic; None if no report has the curve."""
    accept = _accept_lines(reports)
    if not accept:
        return None
    lines = tuple(Line(line.name, line.x, 1.0 - line.y / 100.0, line.threshold) for line in accept)
    rates = np.concatenate([line.y for line in lines])
    lowest = _power_below(rates[rates > 1e-9].min(initial=1e-1))
    span = (lines[0].x[0], 1.0), (lowest, 1.0)
    return Chart(
        "det", f"{protocol}: DET", "false accept rate", "false reject rate", lines, *span, True, True, shape="steps"
    )


def _accept_lines(reports: Mapping[str, Report]) -> tuple[Line, ...]:
    """ROC of each report from one common FAR on: the power of ten below the least that was met."""
    curves = {
        model: report.curves for model, report in reports.items() if (report.curves.get("far", np.zeros(1)) > 0).any()
    }
    if not curves:
        return ()
    lowest = min(_power_below(curve["far"][curve["far"] > 0].min()) for curve in curves.values())
    lines = []
    for model, curve in curves.items():
        start = max(0, int(np.searchsorted(curve["far"], 0.0, "right")) - 1)  # all accepted before a false accept
        threshold = curve["threshold"][start:] if "threshold" in curve else None
        lines.append(Line(model, np.maximum(curve["far"][start:], lowest), 100 * curve["tar"][start:], threshold))
    return tuple(lines)


def cmc(protocol: str, reports: Mapping[str, Report]) -> Chart | None:
    """Share of the probes found up to each rank; None if no report has the curve."""
    curves = {model: report.curves for model, report in reports.items() if len(report.curves.get("rank", ()))}
    if not curves:
        return None
    lines = tuple(Line(model, curve["rank"], 100 * curve["rank_rate"]) for model, curve in curves.items())
    last, low = max(float(line.x[-1]) for line in lines), _round_floor(lines)
    title, axis = f"{protocol}: CMC", "found up to this rank [%]"
    return Chart("cmc", title, "rank", axis, lines, (1.0, max(2.0, last)), (low, 100.0), last > 50)


def error_reject(protocol: str, reports: Mapping[str, Report]) -> Chart | None:
    """False non-matches among what is left when the images of least quality are rejected; None without the curve."""
    curves = {model: report.curves for model, report in reports.items() if len(report.curves.get("reject", ()))}
    if not curves:
        return None
    lines = tuple(Line(model, 100 * curve["reject"], 100 * curve["fnmr"]) for model, curve in curves.items())
    right = max(float(line.x.max()) for line in lines)
    high = max(float(line.y.max()) for line in lines)
    title, axis = f"{protocol}: error versus reject", "false non-match rate [%]"
    return Chart(
        "reject", title, "rejected [%]", axis, lines, (0.0, right or 100.0), (0.0, 1.05 * high or 1.0), shape="steps"
    )


def scores(report: Report, title: str) -> Chart | None:
    """Histogram of the scores of same and of different pairs, with the threshold; None without the counts."""
    if "score_edges" not in report.curves:
        return None
    edges, lines = report.curves["score_edges"], []
    for side in ("different", "same"):
        counts = report.curves[f"{side}_count"]
        if counts.sum():
            lines.append(Line(f"{side} pairs ({counts.sum():,.0f})", edges, 100 * counts / counts.sum()))
    if not lines:
        return None
    used = np.flatnonzero(sum(line.y for line in lines))
    span = float(edges[max(0, used[0] - 2)]), float(edges[min(len(edges) - 1, used[-1] + 3)])
    high = 1.05 * max(float(line.y.max()) for line in lines)
    threshold = next((metric.value for metric in report.metrics if metric.name == "threshold"), None)
    marks = () if threshold is None else ((f"threshold {threshold:.3f}", threshold),)
    label = "share of the pairs [%]"
    return Chart("scores", title, "similarity", label, tuple(lines), span, (0.0, high), shape="bars", marks=marks)


def _round_floor(lines: Sequence[Line]) -> float:
    """Where an axis of percents begins, so that the lowest line has some room below it."""
    room = 1.1 * (100 - min(float(line.y[0]) for line in lines))
    return 100.0 - next((span for span in (1, 2, 5, 10, 20, 50) if span >= room), 100)


def _power_below(rate: float) -> float:
    return float(10.0 ** math.floor(math.log10(rate) + 1e-9))
