"""Tables, files, plots and the page."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from facelab.errors import DataError
from facelab.test_protocol import report
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.pair_scores import Rules, ScoredPairs
from facelab.test_protocol.run_report import write_run_report
from facelab.test_protocol.verification import corners, curves, verification_metrics


def make_report(protocol: str, noise: float, one_class: bool = False) -> Report:
    random = np.random.default_rng(0)
    left = random.normal(size=(60, 8))
    same = np.arange(60) % 2 == 0 if not one_class else np.ones(60, bool)
    right = np.where(same[:, None], left, random.normal(size=(60, 8))) + noise * random.normal(size=(60, 8))
    pairs = np.arange(120).reshape(2, 60).T
    scored = ScoredPairs(np.concatenate([left, right]), pairs, same, np.arange(60) // 6, 1.0)
    return Report(protocol, verification_metrics(scored, Rules()), {"flip": False, "x": float("inf")}, curves(scored))


@pytest.fixture
def reports() -> dict[str, list[Report]]:
    return {
        "weak_50% & <i>": [make_report("LFW", 2.0), make_report("all | same", 1.0, one_class=True)],
        "strong": [make_report("LFW", 0.1)],
    }


def printed(content: object) -> str:
    console = Console(width=160, file=io.StringIO(), force_terminal=False)
    console.print(content)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_format_metric() -> None:
    assert report.format_metric(Metric("a", 0.99451, 0.0012)) == "99.45 ± 0.12"
    assert report.format_metric(Metric("a", None, note="why")) == "–"
    assert report.format_metric(Metric("a", float("nan"))) == "–"
    assert report.format_metric(Metric("a", 0.31234, unit="score")) == "0.3123"
    assert report.format_metric(Metric("a", 6000.0, unit="count")) == "6,000"


def test_comparison_has_a_row_for_each_model(reports: dict[str, list[Report]]) -> None:
    comparison = report.compare(reports)
    assert comparison.columns == ("model", "LFW accuracy [%]", "all | same accuracy [%]")
    assert comparison.rows[1][2] == "–"
    assert comparison.best == {(1, 1)}  # a column with one measured value has no best


def test_terminal_tables(reports: dict[str, list[Report]]) -> None:
    text = printed(report.render_table(reports))
    assert "weak_50% & <i>" in text
    assert "LFW accuracy [%]" in text
    detail = printed(report.render_report(reports["weak_50% & <i>"][1]))
    assert "cannot be measured: all 60 pairs are same pairs" in detail


def test_terminal_and_markdown_say_how_it_was_measured() -> None:
    made = {"precision": "bf16", "device": "cpu", "input": "112x112 RGB, -1..1", "resize": True, "images": 7701}
    made |= {"flip": False, "excluded_people": 423, "excluded_pairs": 1759}
    of_model = Report("LFW", (Metric("accuracy", 0.99),), made)
    said = (
        "bf16 on cpu; 112x112 RGB, -1..1 (resized); without mirrored images; 7,701 images; "
        "without the 1,759 pairs of 423 people"
    )
    assert report.conditions(of_model) == said
    assert said in " ".join(printed(report.render_report(of_model)).split())
    assert said in report.as_markdown({"model": [of_model]})
    assert report.conditions(Report("LFW", (Metric("accuracy", 0.99),))) == ""


def test_csv_has_full_precision(reports: dict[str, list[Report]]) -> None:
    rows = list(csv.DictReader(io.StringIO(report.as_csv(reports))))
    assert len(rows) == sum(len(one.metrics) for of_model in reports.values() for one in of_model)
    assert float(rows[0]["value"]) == reports["weak_50% & <i>"][0].headline.value
    assert rows[-1]["model"] == "strong"


def test_markdown_and_latex_escape(reports: dict[str, list[Report]]) -> None:
    markdown = report.as_markdown(reports)
    assert "all \\| same accuracy" in markdown
    assert "**9" in markdown or "**100.00" in markdown
    latex = report.as_latex(reports)
    assert r"weak\_50\% \& <i>" in latex
    assert r"\textbf{" in latex
    assert latex.count(r"\\") == 3


def test_files_are_replaced_whole(reports: dict[str, list[Report]], tmp_path: Path) -> None:
    first = report.write_tables(tmp_path, reports)
    assert sorted(first) == ["csv", "json", "md", "tex"]
    report.write_tables(tmp_path, reports)
    assert len(list(tmp_path.iterdir())) == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"report\.csv: cannot be written"):
        report.write_tables(tmp_path / "file", reports)


def write_metrics(path: Path) -> None:
    lines = [json.dumps({"update": n, "loss": 10 / n, "accuracy": n / 40, "lr": 0.1}) for n in range(1, 40)]
    lines += [json.dumps({"update": 40, "LFW/accuracy": 0.7}), '{"update": 41, "lo']
    path.write_text("\n".join(lines))


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.images.append(values["src"] or "")
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_the_page_is_self_contained_and_escaped(reports: dict[str, list[Report]], tmp_path: Path) -> None:
    folder = tmp_path / "run <script>"
    folder.mkdir()
    write_metrics(folder / "metrics.jsonl")
    (folder / "config.yaml").write_text("name: <script>alert(1)</script>\n")
    console = Console(width=160, file=io.StringIO())
    files = write_run_report(folder, reports, console)
    assert set(files) == {"report", "table", "curves"}
    assert all(path.is_file() for path in files.values())
    text = files["report"].read_text()
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "i" in page.tags
    assert "weak_50% &amp; &lt;i&gt;" in text
    assert len(page.images) == 1 + 2 + 2 + 1  # training, ROC, DET, two histograms on LFW, one of the other protocol
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "LFW accuracy [%]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_report_without_training_or_protocols(tmp_path: Path) -> None:
    files = write_run_report(tmp_path / "empty", {"model": []})
    assert set(files) == {"report", "table"}
    assert "No protocol was run" in files["report"].read_text()


def test_corners_keep_the_curve() -> None:
    from facelab.test_protocol import metrics

    random = np.random.default_rng(0)
    same = random.random(400) < 0.5
    curve = metrics.roc(random.normal(same, 1.0), same)
    kept = corners(curve)
    grid = np.linspace(0, 1, 999)
    np.testing.assert_allclose(
        np.interp(grid, curve.far[kept], curve.tar[kept]), np.interp(grid, curve.far, curve.tar), atol=1e-12
    )
    assert len(kept) < len(curve.far)
