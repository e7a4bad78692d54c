"""The form that all benchmarks share: a table ``what | baseline | facelab | ratio``, and the same as JSON."""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import machine
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Comparison:
    """Two rates of the same work, measured in turns in one run.

    Attributes:
        what: The work.
        baseline: Rate of each round of the plain program.
        facelab: Rate of each round of ours.
        unit: Of the rates; more is better.
        goal: The ratio that we promise, or None.
    """

    what: str
    baseline: tuple[float, ...]
    facelab: tuple[float, ...]
    unit: str = "images/s"
    goal: float | None = None

    @property
    def ratio(self) -> float:
        """Ratio of the medians."""
        return statistics.median(self.facelab) / statistics.median(self.baseline)


def compare(
    what: str,
    baseline: Callable[[], float],
    ours: Callable[[], float],
    *,
    rounds: int,
    goal: float | None = None,
    seconds: float = math.inf,
) -> Comparison:
    """Measure two programs in turns, so that a busy moment of the machine meets both; a first round warms up.

    Args:
        what: The work.
        baseline: Does it the plain way and gives its rate.
        ours: Does it our way.
        rounds: Measurements of each.
        goal: The ratio that we promise.
        seconds: No round but the first starts later than this.
    """
    baseline(), ours()
    rates, start = [(baseline(), ours())], time.perf_counter()
    while len(rates) < rounds and time.perf_counter() - start < seconds:
        rates.append((baseline(), ours()))
    plain, facelab_rates = zip(*rates, strict=True)
    return Comparison(what, plain, facelab_rates, goal=goal)


def report(title: str, rows: list[Comparison], out: Path | None, console: Console) -> None:
    """Print the table, and write figures and machine as JSON."""
    table = Table(title=title, caption=", ".join(f"{key} {value}" for key, value in machine().items()))
    table.add_column("what")
    for heading in ("baseline", "facelab", "ratio", "goal"):
        table.add_column(heading, justify="right")
    for row in rows:
        medians = [f"{_rounded(statistics.median(rates))} {row.unit}" for rates in (row.baseline, row.facelab)]
        table.add_row(row.what, *medians, f"{row.ratio:.2f}x", f"{row.goal:g}x" if row.goal else "")
    console.print(table)
    if out is not None:
        rates = [{**asdict(row), "ratio": row.ratio} for row in rows]
        out.write_text(json.dumps({"title": title, "machine": machine(), "rows": rates}, indent=1) + "\n")
        console.print(f"figures: {out}", highlight=False)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
