"""All models beside each other on every benchmark: one group of bars for each column of the comparison table."""

from pathlib import Path
from typing import Any

import numpy as np

from facelab.test_protocol.comparison import Cell, Comparison
from facelab.test_protocol.plots import COLOURS, DOTS_PER_INCH, save_figure

PERCENT = " [%]"  # what the titles of rates end with
BAR = 0.2  # inches


def plot_side_by_side(comparison: Comparison, png: Path) -> Path | None:
    """Draw the rates of a comparison as bars, a group for each benchmark and a bar for each model.

    Args:
        comparison: Its columns in percent are drawn; what is missing leaves a gap.
        png: File to write.

    Returns:
        The file, or None if there are fewer than two models or no rates to draw.

    Raises:
        DataError: If the file cannot be written.
    """
    groups = {
        title.removesuffix(PERCENT): [row[column] for row in comparison.rows]
        for column, title in enumerate(comparison.columns)
        if title.endswith(PERCENT)
    }
    if len(comparison.rows) < 2 or not groups:
        return None
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    height = 1.0 + BAR * len(groups) * (len(comparison.rows) + 0.8)
    figure = Figure(figsize=(7.2, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    axes = figure.subplots()
    models = [row[0].text for row in comparison.rows]
    for number, model in enumerate(models):
        _draw(axes, model, [cells[number] for cells in groups.values()], number, len(models))
    axes.set_yticks(np.arange(len(groups)), list(groups), parse_math=False)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 112)  # room for the number behind a full bar
    axes.set_xlabel("%")
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside upper left", ncols=min(len(models), 4), frameon=False, fontsize=8.5)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a model's name is no formula
    return save_figure(figure, png)


def _draw(axes: Any, model: str, cells: list[Cell], number: int, count: int) -> None:
    """The bars of one model, with their numbers."""
    rates = np.array([np.nan if cell.value is None else 100 * cell.value for cell in cells])
    thickness = 0.84 / count
    place = np.arange(len(rates)) + thickness * (number - (count - 1) / 2)
    bars = axes.barh(place, np.nan_to_num(rates), 0.92 * thickness, label=model, color=COLOURS[number % len(COLOURS)])
    axes.bar_label(bars, ["" if np.isnan(rate) else f"{rate:.2f}" for rate in rates], fontsize=7, padding=2)
