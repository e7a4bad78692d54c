"""One progress bar for all commands: how many, how fast, how long still."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")


class RateColumn(ProgressColumn):
    """Images a second."""

    def __init__(self, unit: str = "images") -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate as text."""
        return Text(f"… {self._unit}/s" if task.speed is None else f"{task.speed:,.0f} {self._unit}/s")


def open_bar(console: Console, unit: str = "images") -> Progress:
    """A bar that vanishes when it is done, and shows nothing where there is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), RateColumn(unit),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def counted_bars(console: Console, unit: str = "images") -> Iterator[Callable[[str, int, int], None]]:
    """A function of (what, done, all) that shows a bar for each ``what`` while the block lasts."""
    with open_bar(console, unit) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield show


def track(items: Iterable[Item], total: int, what: str, console: Console, unit: str = "images") -> Iterator[Item]:
    """Pass ``items`` on while a bar on the terminal shows how far they are; nothing is shown elsewhere.

    Args:
        items: What is worked on.
        total: How many there will be.
        what: Stands before the bar.
        console: Where the bar is shown.
        unit: What is counted, in the plural.
    """
    with open_bar(console, unit) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)
