"""Charts of a run's ``metrics.jsonl``: loss, training accuracy, learning rate and evaluations over the updates."""

import json
import math
from pathlib import Path

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.charts import Chart, Line, styled
from facelab.test_protocol.line_style import styles_of

PANELS = (("loss", "loss"), ("accuracy", "training accuracy [%]"), ("lr", "learning rate"))
Curves = dict[str, tuple[list[float], list[float]]]


def training_charts(jsonl: Path) -> list[Chart]:
    """A chart for each of loss, training accuracy and learning rate, and one for all evaluations.

    Args:
        jsonl: The run's ``metrics.jsonl``: one object a line with ``update`` and numbers by name. Names with a ``/``
            are results of protocols. A last line that a killed run left unfinished is passed over.

    Raises:
        DataError: If the file is missing or damaged, or there is nothing to draw.
    """
    curves = read_curves(jsonl)
    panels = [(title, {name: curves[name]}) for name, title in PANELS if name in curves]
    results = {name: curve for name, curve in curves.items() if "/" in name}
    if results:
        panels.append(("evaluation [%]", results))
    if not panels:
        raise DataError(f"{jsonl}: there is nothing to draw.")
    last = max(updates[-1] for _, lines in panels for updates, _ in lines.values())
    return [_chart(title, lines, last) for title, lines in panels]


def _chart(title: str, curves: Curves, last: float) -> Chart:
    scale = 100.0 if title.endswith("[%]") else 1.0
    lines = tuple(Line(name, np.array(x), scale * np.array(y)) for name, (x, y) in curves.items())
    values = np.concatenate([line.y for line in lines])
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    span = (0.0 if title == "loss" and low >= 0 else low - room, high + room)
    chart = Chart("training", title, "update", "", lines, (0.0, 1.02 * max(last, 1.0)), span, by_model=False)
    return styled(chart, styles_of(curves))


def read_curves(jsonl: Path) -> Curves:
    """Updates and values of every number in a ``metrics.jsonl``, by name.

    Raises:
        DataError: If the file is missing, or a line other than the last is not a JSON object with an ``update``.
    """
    if not jsonl.is_file():
        raise DataError(f"{jsonl}: there is no such file.")
    curves: Curves = {}
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
