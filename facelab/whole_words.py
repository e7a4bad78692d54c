"""Tables for the terminal whose words are not broken where it is wide enough, which 80 columns should be."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


def plain_table(*columns: str, title: str) -> Table:
    """A table with few lines, which leaves most of the width to its words."""
    return Table(
        *columns, title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip


class WholeWords:
    """A table whose columns are as wide as their longest words, if there is room; rich cuts into the widest ones.

    Args:
        table: The table.
        whole_cells: Keep cells behind the first column whole, as numbers with their deviation.
    """

    def __init__(self, table: Table, *, whole_cells: bool = False) -> None:
        self.table = table
        self._whole_cells = whole_cells

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give each column its longest word, at most half of the width, and share out what is left."""
        columns = self.table.columns
        texts = [[_plain(cell) for cell in (column.header, *column.cells)] for column in columns]
        least = [
            max(longest_word([title]), *map(cell_len, cells))
            if self._whole_cells and number
            else min(longest_word([title, *cells]), options.max_width // 2)
            for number, (title, *cells) in enumerate(texts)
        ]
        liked = [max(map(cell_len, cells)) for cells in texts]
        for column, width in zip(columns, least, strict=True):
            column.width = width
        spare = options.max_width - self.table.__rich_measure__(console, options.update(max_width=10_000)).maximum
        wanted = sum(liked) - sum(least)
        for column, width, like in zip(columns, least, liked, strict=True):
            shared = (like - width) * spare // wanted if 0 <= spare < wanted else like - width
            column.width = width + shared if spare >= 0 else None
        yield self.table


def longest_word(cells: Iterable[str]) -> int:
    """Width of the longest word in some cells."""
    return max((cell_len(word) for cell in cells for word in cell.split()), default=0)


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
