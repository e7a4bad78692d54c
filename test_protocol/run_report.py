"""What a user gets to see after a run: the table, the files beside it, and one HTML page that needs no network."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import facelab
from facelab.test_protocol.base import Report
from facelab.test_protocol.charts import Chart, charts_of
from facelab.test_protocol.failed_images import failure_warning
from facelab.test_protocol.plots import plot
from facelab.test_protocol.report import (
    compare,
    format_metric,
    render_report,
    render_table,
    unit_of,
    write_tables,
)
from facelab.test_protocol.report_page import PAGE
from facelab.test_protocol.report_store import Reports, file_name
from facelab.test_protocol.training_charts import training_charts
from facelab.whole_file import write_whole

METRICS, CONFIG, ENVIRONMENT = "metrics.jsonl", "config.yaml", "environment.json"  # what a run's folder holds


@dataclass(frozen=True)
class _Picture:
    """A plot in the page: its title and its content as a data URI."""

    title: str
    uri: str


def write_run_report(folder: Path, reports: Reports, console: Console | None = None) -> dict[str, Path]:
    """Print the results, and write tables, plots and the page into ``folder``.

    Writes ``report.html``, ``report.json``, ``.csv``, ``.md`` and ``.tex``, ``plots/*.png``, and ``training.png`` if
    the folder holds a run's ``metrics.jsonl``.

    Args:
        folder: A run's folder, or any other.
        reports: Reports of each model.
        console: Where to print; nothing is printed without one.

    Returns:
        The files worth opening: ``report``, ``table``, and ``curves`` if there are any.

    Raises:
        DataError: If a file cannot be written.
    """
    if console is not None:
        _print(console, reports)
    tables = write_tables(folder, reports)
    pictures = _protocol_plots(folder / "plots", reports)
    written = {"report": folder / "report.html", "table": tables["md"]}
    if (folder / METRICS).is_file() and (folder / METRICS).stat().st_size:
        written["curves"] = plot(training_charts(folder / METRICS), folder / "training.png")
        pictures = {"": [_picture("training", written["curves"])], **pictures}
    write_whole(written["report"], render_page(folder.name, reports, pictures, _texts(folder)))
    return written


def render_page(title: str, reports: Reports, pictures: Mapping[str, list[_Picture]], texts: Mapping[str, str]) -> str:
    """The page as HTML; every text from outside is escaped.

    Args:
        title: Name of the run.
        reports: Reports of each model.
        pictures: Plots by protocol; under the empty name those of the training.
        texts: Files to quote at the end, by name.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"metric": format_metric, "unit": unit_of}
    return environment.from_string(PAGE).render(
        title=title,
        version=facelab.__version__,
        comparison=compare(reports),
        protocols=_by_protocol(reports),
        pictures=pictures,
        texts=texts,
    )


def _print(console: Console, reports: Reports) -> None:
    console.print(render_table(reports))
    several = sum(map(len, reports.values())) > 1
    for model, of_model in reports.items():
        for report in of_model:
            console.print(render_report(report, model if several else ""))
            warning = failure_warning(report)
            if warning is not None:
                console.print(warning, style="yellow", highlight=False, markup=False)


def _by_protocol(reports: Reports) -> dict[str, dict[str, Report]]:
    result: dict[str, dict[str, Report]] = {}
    for model, of_model in reports.items():
        for report in of_model:
            result.setdefault(report.protocol, {})[model] = report
    return result


def _protocol_plots(folder: Path, reports: Reports) -> dict[str, list[_Picture]]:
    pictures: dict[str, list[_Picture]] = {}
    for protocol, of_protocol in _by_protocol(reports).items():
        names = numbered_names(protocol, charts_of(protocol, of_protocol))
        pictures[protocol] = [_picture(chart.title, plot([chart], folder / name)) for name, chart in names.items()]
    return pictures


def numbered_names(protocol: str, charts: Sequence[Chart]) -> dict[str, Chart]:
    """File names for the charts of a protocol: ``LFW-roc.png``, and numbers where there are several of a kind."""
    kinds = [chart.kind for chart in charts]
    result = {}
    for place, chart in enumerate(charts):
        number = f"-{kinds[:place].count(chart.kind) + 1}" if kinds.count(chart.kind) > 1 else ""
        result[f"{file_name(protocol)}-{chart.kind}{number}.png"] = chart
    return result


def _picture(title: str, png: Path) -> _Picture:
    return _Picture(title, f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}")


def _texts(folder: Path) -> dict[str, Any]:
    files = (folder / name for name in (CONFIG, ENVIRONMENT))
    return {path.name: path.read_text(encoding="utf-8") for path in files if path.is_file()}
