"""Charts as PNG, drawn without a screen."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.report.charts import PROBIT_TICKS, Chart, Line, Scale, deviates
from facelab.test_protocol.report.drawing import drawing, name_lines, short_name
from facelab.weights.whole_file import write_whole

DOTS_PER_INCH = 130
LONGEST_TITLE = 56  # letters
WIDTH, HEIGHT = 6.4, 4.4  # inches


def plot(charts: Sequence[Chart], png: Path) -> Path:
    """Draw charts into one picture, two beside each other.

    Args:
        charts: At least one.
        png: File to write.

    Raises:
        DataError: If there is none, or the file cannot be written.
    """
    if not charts:
        raise DataError(f"{png}: there is nothing to draw.")
    columns = min(2, len(charts))
    rows = math.ceil(len(charts) / columns)
    with drawing():
        figure, axes = _figure(rows, columns)
        places = np.atleast_1d(axes).ravel()
        for place, chart in zip(places, charts, strict=False):
            _draw(place, chart)
        for empty in places[len(charts) :]:
            empty.set_visible(False)
        return save_figure(figure, png)


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    scale = 1.0 if columns == 1 else 0.8
    size = (scale * WIDTH * columns, scale * HEIGHT * rows)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns)
    for place in np.atleast_1d(axes).ravel():
        place.grid(color="#dddddd", linewidth=0.7)
        place.set_axisbelow(True)
        place.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw(axes: Any, chart: Chart) -> None:
    for line in chart.lines:
        _draw_line(axes, chart, line)
    _draw_marks(axes, chart.marks)
    _set_scale(axes.set_xscale, axes.set_xticks, chart.x_scale)
    _set_scale(axes.set_yscale, axes.set_yticks, chart.y_scale)
    axes.set_xlim(*chart.x_range)
    low, high = chart.y_range
    axes.set_ylim(low, high + 0.015 * (high - low) if high == 100 else high)  # a line at 100 % is to be seen
    if chart.kind == "cmc" and chart.x_scale == "linear":
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.set_title(short_name(chart.title, LONGEST_TITLE), loc="left", parse_math=False)
    _write_note(axes, chart)
    if len(chart.lines) > 1 or (chart.lines and (chart.kind != "training" or "/" in chart.lines[0].name)):
        _legend(axes)


def _draw_marks(axes: Any, marks: Sequence[tuple[str, float]]) -> None:
    """Vertical lines; one is named in the legend, several beside themselves, as they look alike."""
    for label, place in marks:
        axes.axvline(place, color="#444444", linestyle="--", linewidth=1.2, label=label if len(marks) == 1 else None)
        if len(marks) > 1:
            at, beside = (place, 0.68), {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
            look = {"rotation": 90, "ha": "left", "va": "top", "fontsize": 8, "color": "#444444"}
            axes.annotate(label, at, (3, 0), **beside, **look, parse_math=False)


def _set_scale(set_scale: Callable[..., Any], set_ticks: Callable[..., Any], scale: Scale) -> None:
    if scale != "probit":
        set_scale(scale)
        return
    from scipy.special import ndtr

    set_scale("function", functions=(deviates, ndtr))
    labels = [f"{tick:.0e}".replace("e-0", "e-") if tick < 0.01 else f"{tick:g}" for tick in PROBIT_TICKS]
    set_ticks(PROBIT_TICKS, labels)


def _write_note(axes: Any, chart: Chart) -> None:
    where = (0.03, 0.03, "left", "bottom") if chart.lines else (0.5, 0.5, "center", "center")
    x, y, across, along = where
    axes.text(
        x,
        y,
        short_name(chart.note, LONGEST_TITLE),
        transform=axes.transAxes,
        ha=across,
        va=along,
        color="#5b6671",
        parse_math=False,
    )


def _draw_line(axes: Any, chart: Chart, line: Line) -> None:
    style = line.style
    if chart.shape == "bars":
        axes.stairs(line.y, line.x, fill=True, alpha=0.45, color=style.colour, label=line.name)
        axes.stairs(line.y, line.x, color=style.colour, linewidth=1.2)
        return
    look = {"color": style.colour, "linestyle": (0, style.dash) if style.dash else "-", "linewidth": 1.8}
    marker = {"marker": "o", "markersize": 3.5} if len(line.x) < 30 and chart.shape == "line" else {}
    steps = {"drawstyle": "steps-post"} if chart.shape == "steps" else {}
    axes.plot(line.x, line.y, label=line.name, **look, **marker, **steps)


def _legend(axes: Any) -> None:
    name_lines(axes, *axes.get_legend_handles_labels(), loc="best", framealpha=0.85, edgecolor="none", fontsize=8.5)


def save_figure(figure: Any, png: Path) -> Path:
    """Write a matplotlib figure as PNG, whole or not at all; inside of `drawing`.

    Raises:
        DataError: If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)  # type: ignore[no-untyped-call]
    return write_whole(png, content.getvalue())
