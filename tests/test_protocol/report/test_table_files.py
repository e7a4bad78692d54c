"""CSV, Markdown and LaTeX: full precision, escaped, written whole."""

import csv
import io
import re
from pathlib import Path

import pytest

from facelab.errors import DataError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report.comparison import Cell, Comparison, compare
from facelab.test_protocol.report.table_files import (
    as_csv,
    as_latex,
    as_markdown,
    comparison_csv,
    comparison_markdown,
    write_tables,
)

MARKED = Comparison(
    ("model", "LFW [%]"),
    ((Cell("a|b_1"), Cell("99.00", 0.99, best=True)), (Cell("c"), Cell("98.90", 0.98901, noise=True))),
    ({"model": "../runs/a b", "log": "l.jsonl"}, {}),
    ("not tested\nalike",),
)


def test_csv_has_full_precision(reports: dict[str, list[Report]]) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(reports))))
    assert len(rows) == sum(len(one.metrics) for of_model in reports.values() for one in of_model)
    assert float(rows[0]["value"]) == reports["weak_50% & <i>"][0].headline.value
    assert rows[-1]["model"] == "strong"


def test_csv_of_a_comparison() -> None:
    first, second = csv.DictReader(io.StringIO(comparison_csv(MARKED)))
    assert first == {
        "model": "a|b_1",
        "LFW [%]": "0.99",
        "model file": "../runs/a b",
        "log file": "l.jsonl",
        "within noise of the best": "",
    }
    assert (second["LFW [%]"], second["within noise of the best"]) == ("0.98901", "LFW [%]")


def test_markdown_of_a_comparison() -> None:
    lines = comparison_markdown(MARKED).splitlines()
    assert lines[0] == "| model | LFW [%] | files |"
    assert lines[2] == r"| a\|b_1 | **99.00** | [model](<../runs/a b>), [log](<l.jsonl>) |"
    assert lines[3] == "| c | 98.90† |  |"
    assert lines[5].startswith("Bold: best. †")
    assert lines[7] == "**Warning:** not tested alike"


def test_latex_of_a_comparison() -> None:
    latex = as_latex(MARKED)
    assert r"a\textbar{}b\_1 & \textbf{99.00} \\" in latex
    assert r"c & 98.90$^{\dagger}$ \\" in latex
    assert "% Warning: not tested alike" in latex


def test_markdown_and_latex_escape(reports: dict[str, list[Report]]) -> None:
    markdown = as_markdown(reports, compare(reports))
    assert "all \\| same accuracy" in markdown
    assert "**9" in markdown or "**100.00" in markdown
    latex = as_latex(compare(reports))
    assert r"weak\_50\% \& \textless{}i\textgreater{}" in latex
    assert r"\textbf{" in latex
    assert latex.count(r"\\") == 3


HOSTILE = "=cmd|'/C calc'!A0 <img src=x onerror=alert(1)> [x](javascript:y) `*_b_*` $x$ \\\nnext"


def test_names_from_outside_do_nothing_in_spreadsheet_page_or_paper() -> None:
    hostile = Comparison(
        ("model", HOSTILE), ((Cell(HOSTILE), Cell("99.00", -0.5)),), ({HOSTILE: "a>b<c\n.log"},), (HOSTILE,)
    )
    report = Report(HOSTILE, (Metric(HOSTILE, -0.5, note=HOSTILE),), {"precision": HOSTILE, "device": "cpu"})
    for text in (comparison_csv(hostile), as_csv({HOSTILE: [report]})):
        rows = list(csv.reader(io.StringIO(text)))
        assert any(cell.startswith("'=cmd") for row in rows for cell in row)
        for row in rows:
            assert all(not cell.startswith(("=", "+", "@")) for cell in row)
            assert all(float(cell) == -0.5 for cell in row if cell.startswith("-"))
    for markdown in (comparison_markdown(hostile), as_markdown({HOSTILE: [report]}, hostile)):
        assert "<img" not in markdown
        assert "](javascript" not in markdown
        assert (
            "&lt;img src=x onerror=alert(1)&gt; [x]\\(javascript:y) \\`\\*\\_b\\_\\*\\` \\$x\\$ \\\\ next" in markdown
        )
        assert "(<a%3Eb%3Cc%0A.log>)" in markdown
        tables = [line for line in markdown.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables[:3]} == {4}
    assert r"=cmd\textbar{}'/C calc'" in as_latex(hostile)
    assert "\\textbackslash{} next" in as_latex(hostile)


def test_files_are_replaced_whole(reports: dict[str, list[Report]], tmp_path: Path) -> None:
    first = write_tables(tmp_path, reports, compare(reports))
    assert sorted(first) == ["csv", "json", "md", "tex"]
    write_tables(tmp_path, reports, compare(reports))
    assert len(list(tmp_path.iterdir())) == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"report\.csv: cannot be written"):
        write_tables(tmp_path / "file", reports, compare(reports))
