"""Names of runs, models, protocols and files are shown as they are: square brackets are no markup."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from facelab.progress_bar import counted_bars

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("facelab", "training_mode") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_console_reads_markup(path: Path) -> None:
    made = re.findall(r"\bConsole\((?!\)\.width).*", path.read_text(encoding="utf-8"))
    assert [line for line in made if "markup=False" not in line] == []


def test_a_bar_shows_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with counted_bars(console) as show:
        show("[/] on [red]LFW", 1, 2)
    assert "[/] on [red]LFW" in console.file.getvalue()  # type: ignore[attr-defined]
