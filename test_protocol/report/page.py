"""The HTML page of reports: one file without network; tables to sort, curves to read off, the hardest errors."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from facelab.test_protocol.base import Metric, Mistake, Picture, Report
from facelab.test_protocol.report.charts import Chart, Floats, charts_of
from facelab.test_protocol.report.comparison import LEGEND, Comparison, by_protocol
from facelab.test_protocol.report.line_style import OTHERS, LineStyle, styles_of
from facelab.test_protocol.report.metric_text import format_metric, unit_of
from facelab.test_protocol.report.report_store import Reports
from facelab.version import __version__

HERE = Path(__file__).parent
MAX_POINTS = 400  # of a line in the page; what a screen can show
WORD = re.compile(r"[^\s@]*@?\s*")
DRAWN = re.compile(r".*\.npy\[\d+\] \((.+)\)")
KINDS = {
    "false match": "False matches: two people, and yet alike",
    "false non-match": "False non-matches: one person, and yet unlike",
}


@dataclass(frozen=True)
class _Line:
    """One metric of some models; ``note`` is what all of them say."""

    title: str
    kind: str
    metrics: tuple[Metric | None, ...]
    note: str


@dataclass(frozen=True)
class _Section:
    """What the page shows of one protocol; charts by their number."""

    name: str
    models: tuple[str, ...]
    charts: tuple[int, ...]
    lines: tuple[_Line, ...]
    options: Mapping[str, tuple[str, ...]]
    mistakes: Mapping[str, Mapping[str, Sequence[Mistake]]] = field(default_factory=dict)


def render_page(
    title: str,
    reports: Reports,
    comparison: Comparison,
    training: Sequence[Chart] = (),
    texts: Mapping[str, str] | None = None,
) -> str:
    """The page as HTML. Every text from outside is escaped, and the page's own script is the only one that may run.

    Args:
        title: Name of the run or of the comparison.
        reports: Reports of each model.
        comparison: The table at the top.
        training: Charts of the training.
        texts: Files to quote at the end, by name.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"metric": format_metric, "uri": _uri, "link": _link, "words": _words}
    environment.filters["short"] = short_location
    styles, charts = styles_of(reports), list(training)
    sections = [_section(name, of_models, charts, styles) for name, of_models in by_protocol(reports).items()]
    script = (HERE / "page.js").read_text(encoding="utf-8")
    # The page's policy names this hash: a script that a report smuggles in has another one, and browsers do not run it.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string((HERE / "page.html").read_text(encoding="utf-8")).render(
        title=title,
        version=__version__,
        comparison=comparison,
        linked=any(comparison.links),
        legend=LEGEND,
        styles=styles,
        others=OTHERS,
        histograms=any(chart.kind == "scores" for chart in charts),
        training=range(len(training)),
        protocols=sections,
        texts=texts or {},
        charts=[_chart_tree(chart) for chart in charts],
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _section(
    name: str, reports: Mapping[str, Report], charts: list[Chart], styles: Mapping[str, LineStyle]
) -> _Section:
    """Gather one protocol; its charts are added to ``charts``."""
    own = charts_of(name, reports, styles)
    numbers = tuple(range(len(charts), len(charts) + len(own)))
    charts += own
    mistakes = {model: groups for model, report in reports.items() if (groups := _groups(report.mistakes))}
    return _Section(name, tuple(reports), numbers, _lines(reports.values()), _options(reports.values()), mistakes)


def _lines(reports: Iterable[Report]) -> tuple[_Line, ...]:
    of_reports = [{(metric.name, metric.kind): metric for metric in report.metrics} for report in reports]
    keys = dict.fromkeys(key for of_report in of_reports for key in of_report)
    lines = []
    for name, kind in keys:
        found = tuple(of_report.get((name, kind)) for of_report in of_reports)
        first = next(metric for metric in found if metric is not None)
        notes = {metric.note for metric in found if metric is not None}
        lines.append(_Line(f"{name}{unit_of(first)}", kind, found, notes.pop() if len(notes) == 1 else ""))
    return tuple(lines)


def _options(reports: Iterable[Report]) -> dict[str, tuple[str, ...]]:
    trees = [report.options for report in reports]
    names = dict.fromkeys(name for tree in trees for name in tree)
    return {name: tuple(_told(tree[name]) if name in tree else "–" for tree in trees) for name in names}


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _groups(mistakes: Sequence[Mistake]) -> dict[str, list[Mistake]]:
    """Mistakes that have pictures, by the heading above them."""
    shown = [mistake for mistake in mistakes if mistake.pictures is not None]
    groups = {heading: [mistake for mistake in shown if mistake.kind == kind] for kind, heading in KINDS.items()}
    return {heading: group for heading, group in groups.items() if group}


def _chart_tree(chart: Chart) -> dict[str, Any]:
    lines = []
    for line in chart.lines:
        rows = np.arange(len(line.y))
        if chart.shape != "bars" and len(rows) > MAX_POINTS:
            rows = np.unique(np.linspace(0, len(rows) - 1, MAX_POINTS).round().astype(np.int64))
        x = line.x if chart.shape == "bars" else line.x[rows]
        tree = {"name": line.name, "x": _numbers(x), "y": _numbers(line.y[rows]), **vars(line.style)}
        lines.append(tree if line.threshold is None else {**tree, "threshold": _numbers(line.threshold[rows])})
    return {**vars(chart), "lines": lines}


def _numbers(values: Floats) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _uri(picture: Picture) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"


def _link(path: str) -> str:
    return quote(path)  # a colon too, so that no path is taken for another scheme


def _words(title: str) -> list[str]:
    """Where the title of a metric may be broken: at spaces and behind ``@``, not within numbers."""
    return [word for word in WORD.findall(title) if word]


def short_location(location: str) -> str:
    """The last two parts of a path, the person and the file; of a drawn image who it is."""
    if drawn := DRAWN.fullmatch(location):
        return drawn[1]
    return "/".join(location.replace("\\", "/").rstrip("/").split("/")[-2:])
