"""Reports as tables on the terminal."""

from rich.table import Table
from rich.text import Text

from facelab.test_protocol.base import Report
from facelab.test_protocol.comparison import LEGEND, Cell, Comparison
from facelab.test_protocol.metric_text import conditions, format_metric, unit_of


def render_table(comparison: Comparison) -> Table:
    """A comparison for the terminal; the best of several models in bold, those within noise of it marked."""
    caption = LEGEND if comparison.has_noise else None
    table = Table(title="Results", title_justify="left", caption=caption, caption_justify="left")
    table.add_column(Text(comparison.columns[0]), overflow="fold")
    for title in comparison.columns[1:]:
        table.add_column(
            Text(title), justify="right", overflow="fold"
        )  # cut, accuracy@16px and accuracy@8px look alike
    for row in comparison.rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(cell: Cell) -> Text:
    return Text(cell.marked, "bold" if cell.best else "")


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
