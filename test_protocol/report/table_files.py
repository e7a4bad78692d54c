"""Reports and comparisons as CSV, Markdown and LaTeX files."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from facelab.csv_cells import as_cell
from facelab.test_protocol.report.comparison import LEGEND, NOISE, Cell, Comparison
from facelab.test_protocol.report.metric_text import conditions, format_metric, unit_of
from facelab.test_protocol.report.report_store import Reports, write_reports
from facelab.weights.whole_file import write_whole


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
                cells = (model, report.protocol, m.name, *told, m.unit, m.kind, m.note)
                writer.writerow(map(as_cell, cells))
    return lines.getvalue()


def comparison_csv(comparison: Comparison) -> str:
    """The comparison with full precision: a line for each model, and a column that says what is within noise."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    links = list(dict.fromkeys(label for of_model in comparison.links for label in of_model))
    titles = (*comparison.columns, *(f"{label} file" for label in links), "within noise of the best")
    writer.writerow(map(as_cell, titles))
    for row, of_model in zip(comparison.rows, comparison.links, strict=True):
        told = [cell.text if cell.value is None else repr(cell.value) for cell in row[1:]]
        noise = "; ".join(title for title, cell in zip(comparison.columns, row, strict=True) if cell.noise)
        cells = (row[0].text, *told, *(of_model.get(label, "") for label in links), noise)
        writer.writerow(map(as_cell, cells))
    return lines.getvalue()


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown table, with links to model and log, a legend and warnings."""
    linked = any(comparison.links)
    rows = []
    for row, of_model in zip(comparison.rows, comparison.links, strict=True):
        links = ", ".join(f"[{_plain_cell(label)}](<{_target(target)}>)" for label, target in of_model.items())
        rows.append([*map(_markdown_cell, row), *([links] if linked else [])])
    columns = [*map(_plain_cell, comparison.columns), *(["files"] if linked else [])]
    notes = [f"{LEGEND}\n"] if comparison.has_noise else []
    warnings = [f"**Warning:** {_plain_cell(warning)}\n" for warning in comparison.warnings]
    return "\n".join([_markdown_table(columns, rows), *notes, *warnings])


def as_markdown(reports: Reports, comparison: Comparison) -> str:
    """The comparison, then one table for each report."""
    parts = [comparison_markdown(comparison)]
    for model, of_model in reports.items():
        for report in of_model:
            lines = [
                [_plain_cell(f"{m.name}{unit_of(m)}"), format_metric(m), m.kind, _plain_cell(m.note)]
                for m in report.metrics
            ]
            heading = f"## {_plain_cell(report.protocol)}: {_plain_cell(model)}"
            table = _markdown_table(["metric", "value", "kind", "note"], lines)
            parts.append(f"{heading}\n\n{_plain_cell(conditions(report))}\n\n{table}")
    return "\n".join(parts)


def _markdown_cell(cell: Cell) -> str:
    text = _plain_cell(cell.marked)
    return f"**{text}**" if cell.best else text


_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKDOWN = {**_ENTITIES, **{sign: f"\\{sign}" for sign in "\\|`*~$"}}
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # within a word an underscore is only an underscore


def _plain_cell(text: str) -> str:
    """Text of which Markdown makes nothing: no HTML, link, emphasis, code, formula or further column."""
    escaped = "".join(_MARKDOWN.get(sign, sign) for sign in _CONTROL.sub(" ", text))
    # Brackets are text until a parenthesis follows, which makes them a link.
    return _EDGE.sub(r"\\_", escaped).replace("](", "]\\(")


def _target(path: str) -> str:
    """A link's target between ``<`` and ``>``."""
    return quote(path, safe="/:.-_~ ()[],;=+@!'")


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, rule, *rows))


def as_latex(comparison: Comparison) -> str:
    """The comparison as a booktabs ``tabular``; the best of several models in bold."""
    lines = [
        r"% needs \usepackage{booktabs}",
        *(f"% Warning: {' '.join(warning.split())}" for warning in comparison.warnings),
        rf"\begin{{tabular}}{{l{'r' * (len(comparison.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(_latex_text, comparison.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_latex_cell, row)) + r" \\" for row in comparison.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, *([rf"\\ {_latex_text(LEGEND)}"] if comparison.has_noise else []), ""])


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_LATEX |= {NOISE: r"$^{\dagger}$"}


def _latex_cell(cell: Cell) -> str:
    text = _latex_text(cell.marked)
    return rf"\textbf{{{text}}}" if cell.best else text


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in _CONTROL.sub(" ", text))


def write_tables(folder: Path, reports: Reports, comparison: Comparison) -> dict[str, Path]:
    """Write ``report.json`` with its trials, ``report.csv``, ``.md`` and ``.tex``; gives the path by ending.

    Raises:
        DataError: If a file cannot be written.
    """
    texts = {"csv": as_csv(reports), "md": as_markdown(reports, comparison), "tex": as_latex(comparison)}
    tables = {ending: write_whole(folder / f"report.{ending}", text) for ending, text in texts.items()}
    return {"json": write_reports(folder, reports), **tables}
