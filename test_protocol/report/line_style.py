"""How lines look: a model has one colour on every chart of a page, and lines that lie on each other stay visible."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # told apart by everyone
DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 2))  # from the eighth model on
STROKE = 6.0  # length of the strokes of a line that lies on others
MOST_BELOW = 4  # lines that can be seen below another one
SAMPLES = 101
CLOSE, SHARED = 0.005, 0.3  # of the axis: nearer lines touch; of the places: lines that touch there coincide


@dataclass(frozen=True)
class LineStyle:
    """The look of one line.

    Attributes:
        colour: As ``#rrggbb``.
        dash: Lengths of strokes and gaps, in points; none for a whole line.
    """

    colour: str = COLOURS[0]
    dash: tuple[float, ...] = ()


PLAIN = LineStyle()
"""The look of a line without company."""

OTHERS = LineStyle("#9aa3ab")
"""What belongs to no model, such as the scores of different people."""


def styles_of(names: Iterable[str]) -> dict[str, LineStyle]:
    """A style for each name, by its place; models of one page ask once, with all of their names."""
    return {
        name: LineStyle(COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)])
        for place, name in enumerate(dict.fromkeys(names))
    }


def over_each_other(
    styles: Sequence[LineStyle], curves: Sequence[tuple[Floats, Floats]], *, steps: bool = False
) -> list[LineStyle]:
    """Styles of lines that are drawn one over the other: where one lies on others it is dashed, and they show below.

    Args:
        styles: Of each line.
        curves: Places of each line's points on the axes, (N,) each, x ascending; 0 to 1 is the length of an axis.
        steps: Whether a line keeps its value until the next point.
    """
    places = np.linspace(0.0, 1.0, SAMPLES)
    heights = [_at(places, x, y, steps) for x, y in curves]
    result = []
    for number, style in enumerate(styles):
        below = min(MOST_BELOW, sum(_coincide(heights[number], other) for other in heights[:number]))
        result.append(replace(style, dash=(STROKE, below * STROKE)) if below else style)
    return result


def _at(places: Floats, x: Floats, y: Floats, steps: bool) -> Floats:
    """Height of a line at some places, NaN where it has none."""
    if not len(x):
        return np.full(len(places), np.nan)
    if not steps:
        return np.interp(places, x, y, left=np.nan, right=np.nan)
    row = np.searchsorted(x, places + 1e-9, "right") - 1
    return np.where(row < 0, np.nan, y[row])


def _coincide(first: Floats, second: Floats) -> bool:
    """Whether two lines touch over a good part of what is drawn."""
    both = np.isfinite(first) & np.isfinite(second)
    return bool(both.any() and np.mean(np.abs(first[both] - second[both]) < CLOSE) >= SHARED)
