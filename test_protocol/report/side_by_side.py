"""All models beside each other on every benchmark: one group of bars for each column of the comparison table."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facelab.test_protocol.report.comparison import LEGEND, NOISE, Cell, Comparison
from facelab.test_protocol.report.drawing import drawing, name_lines, short_name
from facelab.test_protocol.report.line_style import DASHES, LineStyle, styles_of
from facelab.test_protocol.report.plots import DOTS_PER_INCH, save_figure

PERCENT = " [%]"  # what the titles of rates end with
BAR = 0.2  # inches
HATCHES = dict(zip(DASHES, ("", "//", ".."), strict=True))  # bars of models whose lines are dashed
MOST_BARS = 600
WRAPPED = 110  # letters of a line below the bars


def plot_side_by_side(comparison: Comparison, png: Path) -> Path | None:
    """Draw the rates of a comparison as bars, a group for each benchmark and a bar for each model.

    A thin line shows the interval of a rate, or what its table says behind ±; † is as in the table.

    Args:
        comparison: Its columns in percent are drawn; what is missing leaves a gap.
        png: File to write.

    Returns:
        The file, or None if there are fewer than two models, no rates to draw, or more than `MOST_BARS`.

    Raises:
        DataError: If the file cannot be written.
    """
    groups = {
        title.removesuffix(PERCENT): [row[column] for row in comparison.rows]
        for column, title in enumerate(comparison.columns)
        if title.endswith(PERCENT)
    }
    if len(comparison.rows) < 2 or not 0 < len(groups) * len(comparison.rows) <= MOST_BARS:
        return None
    with drawing():
        return save_figure(_figure(comparison, groups), png)


def _figure(comparison: Comparison, groups: Mapping[str, list[Cell]]) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    height = 1.0 + BAR * len(groups) * (len(comparison.rows) + 0.8)
    figure = Figure(figsize=(7.2, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    axes = figure.subplots()
    styles = styles_of(row[0].text for row in comparison.rows)
    for number, (model, style) in enumerate(styles.items()):
        _draw(axes, model, style, [cells[number] for cells in groups.values()], number, len(styles))
    axes.set_yticks(np.arange(len(groups)), [short_name(name) for name in groups], parse_math=False)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 112)  # room for the number behind a full bar
    axes.set_xlabel("%")
    if comparison.has_noise:
        figure.supxlabel(textwrap.fill(LEGEND.partition("Bold: best. ")[2], WRAPPED), fontsize=7, x=0.01, ha="left")
    axes.spines[["top", "right"]].set_visible(False)
    bars, names = axes.get_legend_handles_labels()
    columns = max(1, min(len(names), 4, 100 // max(len(short_name(name)) + 8 for name in names)))
    name_lines(figure, bars, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5)
    return figure


def _draw(axes: Any, model: str, style: LineStyle, cells: list[Cell], number: int, count: int) -> None:
    """The bars of one model, with their numbers behind their error bars."""
    rates = np.array([np.nan if cell.value is None else 100 * cell.value for cell in cells])
    ends = np.array([[np.nan] * 2 if cell.ends is None else np.multiply(cell.ends, 100) for cell in cells])
    thickness = 0.84 / count
    place = np.arange(len(rates)) + thickness * (number - (count - 1) / 2)
    look = {"color": style.colour, "hatch": HATCHES[style.dash], "edgecolor": "white", "linewidth": 0}
    axes.barh(place, np.nan_to_num(rates), 0.92 * thickness, label=model, **look)
    axes.hlines(place, *ends.T, color="#444444", linewidth=1.0)
    # fmax() passes over NaN, which stands for a rate without an interval.
    for at, rate, cell, furthest in zip(place, rates, cells, np.fmax(rates, ends[:, 1]), strict=True):
        if not np.isnan(rate):
            text = f"{rate:.2f}{NOISE if cell.noise else ''}"
            axes.annotate(text, (furthest, at), (2, 0), textcoords="offset points", va="center", fontsize=7)
