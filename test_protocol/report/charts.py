"""What the curves of reports show, as charts that the PNG plots and the page draw alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facelab.test_protocol.base import Report
from facelab.test_protocol.report.line_style import OTHERS, PLAIN, LineStyle, over_each_other, styles_of

Floats = NDArray[np.float64]
Shape = Literal["line", "steps", "bars"]
Scale = Literal["linear", "log", "probit"]

NO_ERRORS = "no errors"
LEAST_RATE = 1e-12  # that a probit axis tells from 0
PROBIT_TICKS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
FEWEST_RANKS = 5  # that a CMC shows, where there are as many
MOST_HISTOGRAMS = 24  # of a protocol; one for each model says nothing where there are hundreds


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        name: Of the model, or of what the curve shows.
        x: Ascending, (N,); for ``bars`` the N + 1 edges.
        y: (N,).
        threshold: Score at each point, (N,), where there is one.
        style: How it looks.
    """

    name: str
    x: Floats
    y: Floats
    threshold: Floats | None = None
    style: LineStyle = PLAIN


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
        x_scale: Of the axis: ``probit`` places a rate at its normal deviate, as DET plots do.
        y_scale: The same.
        shape: ``steps`` keep a value until the next point, ``bars`` are histograms.
        marks: Vertical lines: label and place.
        note: What the curves do not show; alone in the frame where there is none.
        by_model: Whether each line is a model, in its colour; else the chart needs a legend of its own.
    """

    kind: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    shape: Shape = "line"
    marks: tuple[tuple[str, float], ...] = ()
    note: str = ""
    by_model: bool = True


def charts_of(
    protocol: str, reports: Mapping[str, Report], styles: Mapping[str, LineStyle] | None = None
) -> list[Chart]:
    """Every chart that the reports of some models on one protocol have curves for.

    Args:
        protocol: Its name.
        reports: Report of each model.
        styles: How each model looks, on this page and elsewhere; by its place among ``reports`` by default.
    """
    styles = styles_of(reports) if styles is None else styles
    shared: tuple[Callable[[str, Mapping[str, Report]], Chart | None], ...] = (roc, det, cmc, error_reject)
    found = [styled(chart, styles) for make in shared if (chart := make(protocol, reports)) is not None]
    return found + _on_one_scale(_histograms(protocol, reports, styles))


def styled(chart: Chart, styles: Mapping[str, LineStyle]) -> Chart:
    """The chart with the styles of its lines, by their names; where lines lie on each other, all can be seen."""
    looks = [styles[line.name] for line in chart.lines]
    if chart.shape != "bars":
        x = [_placed(line.x, chart.x_range, chart.x_scale) for line in chart.lines]
        y = [_placed(line.y, chart.y_range, chart.y_scale) for line in chart.lines]
        looks = over_each_other(looks, list(zip(x, y, strict=True)), steps=chart.shape == "steps")
    lines = (replace(line, style=look) for line, look in zip(chart.lines, looks, strict=True))
    return replace(chart, lines=tuple(lines))


def _placed(values: Floats, span: tuple[float, float], scale: Scale) -> Floats:
    """Values as places on an axis, 0 to 1."""
    low, high = span
    if scale == "log":
        values, low, high = np.log10(np.maximum(values, low)), math.log10(low), math.log10(high)
    if scale == "probit":
        values, (low, high) = deviates(np.clip(values, low, high)), deviates(np.array(span))
    return (values - low) / (high - low)


def deviates(rates: Floats) -> Floats:
    """Normal deviates of rates: where on a probit axis they lie; 0 and 1 at its ends, which no axis shows."""
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(rates, LEAST_RATE, 1.0 - LEAST_RATE)))


def _histograms(protocol: str, reports: Mapping[str, Report], styles: Mapping[str, LineStyle]) -> list[Chart]:
    found = (scores(report, f"{protocol}: scores of {model}", styles[model]) for model, report in reports.items())
    return [chart for chart in found if chart is not None][:MOST_HISTOGRAMS]


def _on_one_scale(charts: Sequence[Chart]) -> list[Chart]:
    """The same charts with the axes that hold all of them, so that they can be compared."""
    if not charts:
        return []
    x_range = min(chart.x_range[0] for chart in charts), max(chart.x_range[1] for chart in charts)
    y_range = 0.0, max(chart.y_range[1] for chart in charts)
    return [replace(chart, x_range=x_range, y_range=y_range) for chart in charts]


def roc(protocol: str, reports: Mapping[str, Report]) -> Chart | None:
    """True against false accept rate, false accepts on a logarithmic axis; None if no report has the curve."""
    lines = _accept_lines(reports)
    if not lines:
        return None
    lowest = lines[0].x[0]
    low = _round_floor(lines)
    title, axis = f"{protocol}: ROC", "true accept rate [%]"
    return Chart(
        "roc", title, "false accept rate", axis, lines, (lowest, 1.0), (low, 100.0), x_scale="log", shape="steps"
    )


def det(protocol: str, reports: Mapping[str, Report]) -> Chart | None:
    """False reject against false accept rate at their normal deviates; None if no report has the curve.

    Where the scores of both kinds of pairs are Gaussian, the curve is a straight line (Martin et al., The DET Curve in
    Assessment of Detection Task Performance, Eurospeech 1997). A model that never rejects anybody has no place on such
    an axis: it is named in the note.
    """
    accept = _accept_lines(reports)
    if not accept:
        return None
    lines = tuple(replace(line, y=1.0 - line.y / 100.0) for line in accept)
    # From percent and back, a rate of 0 may have become a little more.
    shown = tuple(line for line in lines if line.y.max() > 1e-9)
    rates = np.concatenate([line.y for line in lines])
    lowest = min(0.1, _power_below(rates[rates > 1e-9].min(initial=1e-1)))
    highest = 0.99 if rates.max() > 0.5 else 0.5  # nobody works where half of all impostors come in
    return Chart(
        "det", f"{protocol}: DET", "false accept rate", "false reject rate", shown, (lines[0].x[0], 0.5),
        (lowest, highest), x_scale="probit", y_scale="probit", shape="steps", note=_without_errors(lines, shown),
    )  # fmt: skip


def _without_errors(lines: Sequence[Line], shown: Sequence[Line]) -> str:
    """Who makes no errors: nobody, all, or some by name."""
    if len(shown) == len(lines):
        return ""
    names = [line.name for line in lines if line not in shown]
    return f"{NO_ERRORS}: {', '.join(names)}" if shown else NO_ERRORS


def _accept_lines(reports: Mapping[str, Report]) -> tuple[Line, ...]:
    """ROC of each report from one common FAR on: the power of ten below the least that was met."""
    curves = {
        model: report.curves for model, report in reports.items() if (report.curves.get("far", np.zeros(1)) > 0).any()
    }
    if not curves:
        return ()
    least = [float(curve["far"][curve["far"] > 0].min()) for curve in curves.values()]
    lowest = min(0.1, *map(_power_below, least))  # an axis needs a length, even where all false accepts come at once
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
    title, axis = f"{protocol}: CMC", "found up to this rank [%]"
    last, low = _last_rank(lines), _round_floor(lines)
    span = (1.0, max(2.0, last)), (low, 100.0)
    if all(line.y.min() > 100 - 1e-9 for line in lines):
        return Chart("cmc", title, "rank", axis, (), *span, note=NO_ERRORS)
    return Chart(
        "cmc",
        title,
        "rank",
        axis,
        tuple(_up_to(last, line) for line in lines),
        *span,
        x_scale="log" if last > 50 else "linear",
    )


def _last_rank(lines: Sequence[Line]) -> float:
    """The rank behind which no line rises any more, with a little room."""
    end = max(float(line.x[-1]) for line in lines)
    still = max(float(line.x[np.argmax(line.y >= line.y[-1] - 1e-9)]) for line in lines)
    return min(end, max(float(FEWEST_RANKS), math.ceil(1.1 * still)))


def _up_to(last: float, line: Line) -> Line:
    return replace(line, x=line.x[line.x <= last], y=line.y[line.x <= last])


def error_reject(protocol: str, reports: Mapping[str, Report]) -> Chart | None:
    """False non-matches among what is left when the images of least quality are rejected; None without the curve."""
    curves = {model: report.curves for model, report in reports.items() if len(report.curves.get("reject", ()))}
    if not curves:
        return None
    lines = tuple(Line(model, 100 * curve["reject"], 100 * curve["fnmr"]) for model, curve in curves.items())
    right = max(float(line.x.max()) for line in lines)
    high = max(float(line.y.max()) for line in lines)
    title, axis = f"{protocol}: error versus reject", "false non-match rate [%]"
    shown, note = (lines, "") if high > 0 else ((), NO_ERRORS)
    span = (0.0, right or 100.0), (0.0, 1.05 * high or 1.0)
    return Chart("reject", title, "rejected [%]", axis, shown, *span, shape="steps", note=note)


def scores(report: Report, title: str, style: LineStyle = PLAIN) -> Chart | None:
    """Histogram of the scores of same and of different pairs, with the threshold; None without the counts.

    Args:
        report: With ``score_edges`` and the counts.
        title: Above the chart.
        style: Of the model: the colour of the same pairs; different pairs are grey.
    """
    if "score_edges" not in report.curves:
        return None
    edges, lines = report.curves["score_edges"], []
    for side in ("different", "same"):
        counts = report.curves[f"{side}_count"]
        if counts.sum():
            look = OTHERS if side == "different" else replace(style, dash=())
            name = f"{side} pairs ({counts.sum():,.0f})"
            lines.append(Line(name, edges, 100 * counts / counts.sum(), style=look))
    if not lines:
        return None
    used = np.flatnonzero(sum(line.y for line in lines))
    span = float(edges[max(0, used[0] - 2)]), float(edges[min(len(edges) - 1, used[-1] + 3)])
    high = 1.05 * max(float(line.y.max()) for line in lines)
    threshold = next((metric.value for metric in report.metrics if metric.name == "threshold"), None)
    marks = () if threshold is None else ((f"threshold {threshold:.3f}", threshold),)
    label = "share of the pairs [%]"
    return Chart(
        "scores", title, "similarity", label, tuple(lines), span, (0.0, high), shape="bars", marks=marks, by_model=False
    )


def _round_floor(lines: Sequence[Line]) -> float:
    """Where an axis of percents begins, so that the lowest line has some room below it."""
    room = 1.1 * (100 - min(float(line.y[0]) for line in lines))
    return 100.0 - next((span for span in (1, 2, 5, 10, 20, 50) if span >= room), 100)


def _power_below(rate: float) -> float:
    # A power of ten stays itself, however its logarithm was rounded.
    return float(10.0 ** math.floor(math.log10(rate) + 1e-9))
