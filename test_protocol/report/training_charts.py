"""Charts of a run's ``metrics.jsonl``: loss, training accuracy, learning rate and evaluations over the updates."""

from pathlib import Path
from typing import Any

import numpy as np

from facelab.errors import DataError
from facelab.outside.file import read_regular_text
from facelab.outside.json import parse_json
from facelab.test_protocol.report.charts import Chart, Line, styled
from facelab.test_protocol.report.line_style import styles_of
from facelab.test_protocol.report.plain_text import plain

PANELS = (("loss", "loss"), ("accuracy", "training accuracy [%]"), ("lr", "learning rate"))
UPDATE = "update"
LARGEST = 1e30  # number that is drawn
MAX_BYTES, MAX_LINE = 1 << 28, 1 << 20
MOST_CURVES = 200
TrainingCurves = dict[str, tuple[list[float], list[float]]]


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


def _chart(title: str, curves: TrainingCurves, last: float) -> Chart:
    scale = 100.0 if title.endswith("[%]") else 1.0
    lines = tuple(Line(name, np.array(x), scale * np.array(y)) for name, (x, y) in curves.items())
    values = np.concatenate([line.y for line in lines])
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    span = (0.0 if title == "loss" and low >= 0 else low - room, high + room)
    chart = Chart("training", title, "update", "", lines, (0.0, 1.02 * max(last, 1.0)), span, by_model=False)
    return styled(chart, styles_of(curves))


def read_curves(jsonl: Path) -> TrainingCurves:
    """Updates and values of every number in a ``metrics.jsonl``, by name.

    Raises:
        DataError: If the file is missing, or a line other than the last is not a JSON object with an ``update``.
    """
    if not jsonl.is_file():
        raise DataError(f"{jsonl}: there is no such file.")
    curves: TrainingCurves = {}
    lines = _lines(jsonl)
    for number, line in enumerate(lines, 1):
        try:
            values = parse_json(line, f"{jsonl}:{number}", "an object with an update", limit=MAX_LINE, not_finite=True)
            update = _update(values)
        except DataError:
            if number == len(lines):
                break
            raise DataError(f"{jsonl}:{number}: is not a JSON object with an update.") from None
        for name, value in values.items():
            if name != UPDATE and _drawable(value):
                updates, numbers = curves.setdefault(plain(name), ([], []))
                updates.append(update)
                numbers.append(float(value))
        if len(curves) > MOST_CURVES:
            raise DataError(f"{jsonl}:{number}: there are more than {MOST_CURVES} numbers by name.")
    return curves


def _lines(jsonl: Path) -> list[str]:
    try:
        return read_regular_text(jsonl, limit=MAX_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{jsonl}: cannot be read ({error}).") from None


def _update(values: Any) -> float:
    update = values.get(UPDATE) if isinstance(values, dict) else None
    if update is None or not _drawable(update) or update < 0:
        raise DataError("there is no update")
    return float(update)


def _drawable(value: Any) -> bool:
    """Whether it is a number that an axis can hold; a loss that is not finite leaves a gap."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
