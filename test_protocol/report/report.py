"""Reports as tables on the terminal."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from facelab.test_protocol.base import Report
from facelab.test_protocol.report.comparison import LEGEND, Cell, Comparison
from facelab.test_protocol.report.metric_text import conditions, format_metric, unit_of
from facelab.whole_words import WholeWords, longest_word


class ComparisonTable:
    """A comparison for the terminal; where its columns do not fit beside each other, several tables."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        rows = [[cell.marked for cell in row] for row in comparison.rows]
        columns = zip(comparison.columns, *rows, strict=True)
        self._widths = [max(longest_word([title]), *map(len, cells), 0) for title, *cells in columns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One table after the other, each with the names of the models."""
        parts = list(self._parts(options.max_width))
        legend = LEGEND if self.comparison.has_noise else None
        for number, part in enumerate(parts):
            title, caption = "" if number else "Results", legend if part is parts[-1] else None
            yield WholeWords(self._table(part, title, caption), whole_cells=True)

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Numbers of the columns that fit beside the names; at least one."""
        edges = 3  # padding and line of a column
        names = min(self._widths[0], width // 2) + edges + 1
        part: list[int] = []
        used = names
        for number, wide in enumerate(self._widths[1:], 1):
            if part and used + wide + edges > width:
                yield part
                part, used = [], names
            part.append(number)
            used += wide + edges
        yield part

    def _table(self, part: list[int], title: str, caption: str | None) -> Table:
        table = Table(title=title or None, title_justify="left", caption=caption, caption_justify="left")
        table.add_column(Text(self.comparison.columns[0]), overflow="fold")
        for number in part:  # cut, accuracy@16px and accuracy@8px would look alike
            table.add_column(Text(self.comparison.columns[number]), justify="right", overflow="fold")
        for row in self.comparison.rows:
            table.add_row(*(_cell(row[number]) for number in (0, *part)))
        return table


def render_table(comparison: Comparison) -> ComparisonTable:
    """A comparison for the terminal; the best of several models in bold, those within noise of it marked."""
    return ComparisonTable(comparison)


def _cell(cell: Cell) -> Text:
    return Text(cell.marked, "bold" if cell.best else "")


def render_report(report: Report, model: str = "") -> WholeWords:
    """Every number of one report for the terminal, and under it how it was measured."""
    heading, caption = Text(f"{report.protocol}  {model}".rstrip()), Text(conditions(report))
    table = Table(title=heading, title_justify="left", caption=caption, caption_justify="left")
    for title in ("metric", "value", "kind", "note"):
        table.add_column(title, justify="right" if title == "value" else "left")
    for metric in report.metrics:
        cells = (f"{metric.name}{unit_of(metric)}", format_metric(metric), metric.kind, metric.note)
        table.add_row(*map(Text, cells))
    return WholeWords(table)
