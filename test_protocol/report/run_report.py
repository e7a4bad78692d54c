"""What a user gets to see of reports: the tables on the terminal, the files, the plots, and one HTML page."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from rich.console import Console

from facelab.outside.file import read_regular_text
from facelab.test_protocol.base import Report
from facelab.test_protocol.extraction.failed_images import failure_warning
from facelab.test_protocol.report.charts import Chart, charts_of
from facelab.test_protocol.report.comparison import Comparison, by_protocol, compare
from facelab.test_protocol.report.differing_conditions import conditions_warnings
from facelab.test_protocol.report.line_style import styles_of
from facelab.test_protocol.report.model_links import Files, with_files
from facelab.test_protocol.report.page import render_page
from facelab.test_protocol.report.plain_text import plain, plain_report
from facelab.test_protocol.report.plots import plot
from facelab.test_protocol.report.report import render_report, render_table
from facelab.test_protocol.report.report_store import Reports, file_name
from facelab.test_protocol.report.side_by_side import plot_side_by_side
from facelab.test_protocol.report.table_files import as_latex, comparison_csv, comparison_markdown, write_tables
from facelab.test_protocol.report.training_charts import training_charts
from facelab.weights.whole_file import write_whole

MOST_PLOTS = 400  # each takes a fifth of a second
MAX_QUOTED = 1 << 20  # bytes of a file that the page quotes
SIDE_BY_SIDE = "side-by-side.png"
METRICS, CONFIG, ENVIRONMENT = "metrics.jsonl", "config.yaml", "environment.json"  # what a run's folder holds


def write_run_report(
    folder: Path,
    reports: Reports,
    console: Console | None = None,
    files: Files | None = None,
    *,
    metrics: Sequence[str] = (),
    details: bool = True,
    draws: int = 0,
) -> dict[str, Path]:
    """Print the results, and write tables, plots and the page into ``folder``.

    Writes ``report.html``, ``report.json`` with ``trials/*.npz``, ``report.csv``, ``.md`` and ``.tex``,
    ``plots/*.png``, and ``training.png`` if the folder holds a run's ``metrics.jsonl``.

    Args:
        folder: A run's folder, or any other.
        reports: Reports of each model.
        console: Where to print; nothing is printed without one.
        files: Files of each model by label, to link to.
        metrics: Columns of the table instead of the usual ones, see `compare`.
        details: Whether to print each report too, behind the table of all.
        draws: Bootstrap draws of the tests that mark, of several models, what is within noise; 0 for no tests.

    Returns:
        The files worth opening: ``report``, ``table``, and ``curves`` if there are any.

    Raises:
        DataError: If a file cannot be written.
    """
    reports = _plain(with_files(reports, files or {}, folder))
    comparison = compare(reports, metrics=metrics, draws=draws, warnings=warnings_of(reports))
    if console is not None:
        _print(console, reports if details else {}, comparison)
    tables = write_tables(folder, reports, comparison)
    write_plots(folder / "plots", reports, comparison)
    written = {"report": folder / "report.html", "table": tables["md"]}
    training: list[Chart] = []
    if (folder / METRICS).is_file() and (folder / METRICS).stat().st_size:
        training = training_charts(folder / METRICS)
        written["curves"] = plot(training, folder / "training.png")
    title = plain(folder.resolve().name)
    write_whole(written["report"], render_page(title, reports, comparison, training, _texts(folder)))
    return written


def _plain(reports: Reports) -> dict[str, list[Report]]:
    """The same reports without what a terminal would obey and files cannot hold: names of images come from anywhere."""
    return {plain(model): [plain_report(report) for report in of_model] for model, of_model in reports.items()}


def write_comparison(folder: Path, reports: Reports, comparison: Comparison) -> dict[str, Path]:
    """Write ``comparison.html``, ``.json``, ``.csv``, ``.md``, ``.tex`` and ``plots/*.png``; gives the path by ending.

    Raises:
        DataError: If a file cannot be written.
    """
    texts = {
        "html": render_page(f"Comparison of {len(reports)} models", reports, comparison),
        "json": json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n",
        "csv": comparison_csv(comparison),
        "md": comparison_markdown(comparison),
        "tex": as_latex(comparison),
    }
    write_plots(folder / "plots", reports, comparison)
    return {ending: write_whole(folder / f"comparison.{ending}", text) for ending, text in texts.items()}


def warnings_of(reports: Reports) -> list[str]:
    """Why numbers may not be comparable or complete: conditions that differ, images that could not be read."""
    failed = [failure_warning(report) for of_model in reports.values() for report in of_model]
    return [*conditions_warnings(by_protocol(reports)), *dict.fromkeys(said for said in failed if said is not None)]


def write_plots(folder: Path, reports: Reports, comparison: Comparison) -> list[Path]:
    """The charts of the reports as PNG, at most `MOST_PLOTS`, and the rates of several models side by side.

    Raises:
        DataError: If a file cannot be written.
    """
    styles = styles_of(reports)
    named = (
        (name, chart)
        for protocol, of_models in by_protocol(reports).items()
        for name, chart in _numbered(protocol, charts_of(protocol, of_models, styles)).items()
    )
    written = [plot([chart], folder / name) for name, chart in islice(named, MOST_PLOTS)]
    bars = plot_side_by_side(comparison, folder / SIDE_BY_SIDE)
    return written if bars is None else [*written, bars]


def _numbered(protocol: str, charts: Sequence[Chart]) -> dict[str, Chart]:
    """File names for charts: ``LFW-roc.png``, and numbers where there are several of a kind."""
    kinds = [chart.kind for chart in charts]
    result = {}
    for place, chart in enumerate(charts):
        number = f"-{kinds[:place].count(chart.kind) + 1}" if kinds.count(chart.kind) > 1 else ""
        result[f"{file_name(protocol)}-{chart.kind}{number}.png"] = chart
    return result


def _print(console: Console, reports: Reports, comparison: Comparison) -> None:
    console.print(render_table(comparison))
    several = sum(map(len, reports.values())) > 1
    for model, of_model in reports.items():
        for report in of_model:
            console.print(render_report(report, model if several else ""))
    for warning in comparison.warnings:
        console.print(warning, style="yellow", highlight=False, markup=False)


def _texts(folder: Path) -> dict[str, str]:
    """What a run's folder says of how it was made; it may come from anybody too."""
    found = {}
    for path in (folder / CONFIG, folder / ENVIRONMENT):
        if path.is_file():
            try:
                found[path.name] = plain(read_regular_text(path, errors="replace", limit=MAX_QUOTED))
            except OSError as error:
                found[path.name] = f"cannot be shown ({error.strerror or error})"
    return found
