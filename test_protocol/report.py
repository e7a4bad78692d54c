"""Reports as tables: on the terminal, and as CSV, Markdown and LaTeX files. No number is written half."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report_store import Reports, write_reports
from facelab.whole_file import write_whole

MISSING = "–"


@dataclass(frozen=True)
class Comparison:
    """The table of headlines: one row for each model, one column for each protocol.

    Attributes:
        columns: Titles, the first is that of the models.
        rows: Model name, then the text of each cell.
        best: (row, column) of the best value of each column, where there are several models.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]]


def compare(reports: Reports) -> Comparison:
    """Headlines of several models on several protocols; a protocol that a model was not tested on stays empty."""
    titles: dict[str, str] = {}
    for of_model in reports.values():
        for report in of_model:
            titles.setdefault(report.protocol, f"{report.protocol} {report.headline.name}{unit_of(report.headline)}")
    cells = [{report.protocol: report.headline for report in of_model} for of_model in reports.values()]
    rows = [
        (name, *(MISSING if protocol not in row else format_metric(row[protocol]) for protocol in titles))
        for name, row in zip(reports, cells, strict=True)
    ]
    best = {place for column, protocol in enumerate(titles, 1) for place in _best(cells, protocol, column)}
    return Comparison(("model", *titles.values()), tuple(rows), frozenset(best))


def _best(cells: Sequence[Mapping[str, Metric]], protocol: str, column: int) -> list[tuple[int, int]]:
    values = [row[protocol].value if protocol in row else None for row in cells]
    measured = [value for value in values if value is not None]
    if len(measured) < 2:
        return []
    return [(number, column) for number, value in enumerate(values) if value == max(measured)]


def unit_of(metric: Metric) -> str:
    """What stands behind a metric's name in a title."""
    return " [%]" if metric.unit == "fraction" else ""


def format_metric(metric: Metric) -> str:
    """Value, spread and interval as text: fractions in percent, scores with four digits, counts whole.

    For example ``99.50 ± 0.12 [99.31, 99.66]``.
    """
    if metric.value is None or not math.isfinite(metric.value):
        return MISSING
    value = _number(metric.value, metric.unit)
    spread = "" if metric.spread is None else f" ± {_number(metric.spread, metric.unit)}"
    ends = [_number(end, metric.unit) for end in metric.interval or ()]
    return f"{value}{spread} [{', '.join(ends)}]" if ends else f"{value}{spread}"


def _number(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if unit == "count" else f"{value:.4f}"


def render_table(reports: Reports) -> Table:
    """The headlines for the terminal; the best of several models in bold."""
    comparison = compare(reports)
    table = Table(title="Results", title_justify="left")
    table.add_column(comparison.columns[0])
    for title in comparison.columns[1:]:
        table.add_column(title, justify="right")
    for number, row in enumerate(comparison.rows):
        table.add_row(*(Text(cell, "bold" if (number, at) in comparison.best else "") for at, cell in enumerate(row)))
    return table


def conditions(report: Report) -> str:
    """How the embeddings of a report were made, for example ``fp32 on cpu; 112x112 RGB, -1..1; 7,701 images``."""
    said = report.options
    parts = (
        f"{said['precision']} on {said['device']}" if "precision" in said else "",
        f"{said['input']}{' (resized)' if said.get('resize') else ''}" if "input" in said else "",
        f"{'with' if said['flip'] else 'without'} mirrored images" if "flip" in said else "",
        f"{said['images']:,} images" if "images" in said else "",
        f"without the {said['excluded_pairs']:,} pairs of {said['excluded_people']:,} people"
        if "excluded_pairs" in said
        else "",
        "{level:.4g} % intervals in [ ], {draws:,} bootstrap draws {by}".format_map(
            {**said["bootstrap"], "level": 100 * said["bootstrap"]["level"]}
        )
        if "bootstrap" in said
        else "",
    )
    return "; ".join(part for part in parts if part)


def render_report(report: Report, model: str = "") -> Table:
    """Every number of one report for the terminal, and under it how it was measured."""
    heading, caption = Text(f"{report.protocol}  {model}".rstrip()), Text(conditions(report))
    table = Table(title=heading, title_justify="left", caption=caption, caption_justify="left")
    for title in ("metric", "value", "kind", "note"):
        table.add_column(title, justify="right" if title == "value" else "left")
    for metric in report.metrics:
        cells = (f"{metric.name}{unit_of(metric)}", format_metric(metric), metric.kind, metric.note)
        table.add_row(*map(Text, cells))
    return table


def as_csv(reports: Reports) -> str:
    """One line for each number: model, protocol, metric, value, spread, ends of the interval, unit, kind, note."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(("model", "protocol", "metric", "value", "spread", "low", "high", "unit", "kind", "note"))
    for model, of_model in reports.items():
        for report in of_model:
            for m in report.metrics:
                numbers = (m.value, m.spread, *(m.interval or (None, None)))
                told = ("" if number is None else repr(number) for number in numbers)
                writer.writerow((model, report.protocol, m.name, *told, m.unit, m.kind, m.note))
    return lines.getvalue()


def as_markdown(reports: Reports) -> str:
    """The table of headlines, then one table for each report."""
    comparison = compare(reports)
    rows = [
        [f"**{cell}**" if (number, at) in comparison.best else cell for at, cell in enumerate(map(_plain_cell, row))]
        for number, row in enumerate(comparison.rows)
    ]
    parts = [_markdown_table([_plain_cell(title) for title in comparison.columns], rows)]
    for model, of_model in reports.items():
        for report in of_model:
            lines = [
                [_plain_cell(f"{m.name}{unit_of(m)}"), format_metric(m), m.kind, _plain_cell(m.note)]
                for m in report.metrics
            ]
            heading = f"## {report.protocol}: {model}"
            table = _markdown_table(["metric", "value", "kind", "note"], lines)
            parts.append(f"{heading}\n\n{conditions(report)}\n\n{table}")
    return "\n".join(parts)


def _plain_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, rule, *rows))


def as_latex(reports: Reports) -> str:
    """The table of headlines as a booktabs ``tabular``; the best of several models in bold."""
    comparison = compare(reports)
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(comparison.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(_latex_cell, comparison.columns)) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(comparison.rows):
        cells = [_latex_cell(cell) for cell in row]
        bold = [rf"\textbf{{{cell}}}" if (number, at) in comparison.best else cell for at, cell in enumerate(cells)]
        lines.append(" & ".join(bold) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def write_tables(folder: Path, reports: Reports) -> dict[str, Path]:
    """Write ``report.json`` with its trials, ``report.csv``, ``.md`` and ``.tex``; gives the path by ending.

    Raises:
        DataError: If a file cannot be written.
    """
    writers = {"csv": as_csv, "md": as_markdown, "tex": as_latex}
    tables = {ending: write_whole(folder / f"report.{ending}", write(reports)) for ending, write in writers.items()}
    return {"json": write_reports(folder, reports), **tables}
