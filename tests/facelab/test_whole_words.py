import io
import re

import pytest
from rich.console import Console, RenderableType
from rich.table import Table
from typer.testing import CliRunner

from facelab.cli.main import app
from facelab.cli.show import REGISTRIES
from facelab.test_protocol.report.comparison import Cell, Comparison
from facelab.test_protocol.report.report import render_table
from facelab.whole_words import WholeWords


def printed(what: RenderableType, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(what)
    return file.getvalue()


def words(text: str) -> set[str]:
    return {word for line in text.splitlines() for word in re.split(r"[\s│┃─]+", line)} - {""}


def test_no_word_is_broken_where_there_is_room() -> None:
    """Rich alone takes it all from the widest column, whose longest word is then broken."""
    table = Table("short", "long")
    table.add_row("many words that are all short " * 4, "one-word-of-22-letters")
    assert "one-word-of-22-letters" in words(printed(WholeWords(table), 50))
    assert "one-word-of-22-letters" not in words(printed(WholeWords(table), 20))
    assert max(map(len, printed(WholeWords(table), 50).splitlines())) <= 50


@pytest.mark.parametrize("kind", [*REGISTRIES, "configs"])
def test_lists_break_no_word_at_80_columns(kind: str) -> None:
    narrow, wide = (CliRunner().invoke(app, ["list", kind], env={"COLUMNS": width}).output for width in ("80", "1000"))
    assert words(narrow) == words(wide)
    assert max(map(len, narrow.splitlines())) <= 80


def test_a_comparison_of_many_columns_becomes_several_tables() -> None:
    names = ("LFW", "CFP-FP", "AgeDB-30", "IJB-C", "TinyFace", "CALFW")
    columns = ("model", *(f"{name} accuracy [%]" for name in names), "IJB-C TAR@FAR=1e-4 [%]", "precision")
    rows = tuple(
        (Cell(model), *(Cell(f"{number}.45 ± 0.12") for number in range(90, 97)), Cell("fp32"))
        for model in ("synthetic-faces", "a-name-of-a-run-that-is-long")
    )
    text = printed(render_table(Comparison(columns, rows)), 80)
    assert words(text) >= {word for title in columns for word in title.split()}
    assert all(f"{number}.45 ± 0.12" in text for number in range(90, 97))
    assert text.count("a-name-of-a-run-that-is-long") == text.count("model") > 1
    assert max(map(len, text.splitlines())) <= 80
    assert printed(render_table(Comparison(columns, rows)), 300).count("model") == 1
