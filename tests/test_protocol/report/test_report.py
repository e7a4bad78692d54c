"""Tables on the terminal."""

import io

from rich.console import Console

from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report import metric_text, report
from facelab.test_protocol.report.comparison import LEGEND, Cell, Comparison, compare
from facelab.test_protocol.report.table_files import as_markdown


def printed(content: object, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(content)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_format_metric() -> None:
    assert metric_text.format_metric(Metric("a", 0.99451, 0.0012)) == "99.45 ± 0.12"
    assert metric_text.format_metric(Metric("a", None, note="why")) == "–"
    for value in ("nan", "inf", "-inf"):
        assert metric_text.format_metric(Metric("a", float(value))) == "–"
    assert metric_text.format_metric(Metric("a", 0.31234, unit="score")) == "0.3123"
    assert metric_text.format_metric(Metric("a", 6000.0, unit="count")) == "6,000"
    both = Metric("a", 0.5, 0.01, interval=(0.4, 0.6))
    assert metric_text.format_metric(both) == "50.00 ± 1.00 [40.00, 60.00]"
    assert metric_text.format_metric(both, interval=False) == "50.00 ± 1.00"


def test_terminal_tables(reports: dict[str, list[Report]]) -> None:
    text = printed(report.render_table(compare(reports)))
    assert "weak_50% & <i>" in text
    assert "LFW accuracy [%]" in text
    assert "Bold: best" not in text
    detail = printed(report.render_report(reports["weak_50% & <i>"][1]))
    assert "cannot be measured: all 60 pairs are same pairs" in detail


def test_long_names_of_columns_are_whole_on_a_narrow_terminal() -> None:
    names = [f"synthetic accuracy@{pixels}px" for pixels in (16, 8)]
    rows = ((Cell("full"), Cell("88.45 ± 0.71"), Cell("85.38 ± 0.84")),)
    text = printed(report.render_table(Comparison(("model", *names), rows)), width=34)
    assert "…" not in text
    assert "6px" in text  # at the end of 16px
    assert "8px" in text


def test_what_is_within_noise_is_marked_and_explained() -> None:
    rows = ((Cell("[red]a[/]"), Cell("99.00", 0.99, best=True)), (Cell("b"), Cell("98.90", 0.989, noise=True)))
    text = printed(report.render_table(Comparison(("model", "[/]LFW"), rows)))
    assert "[/]LFW" in text
    assert "98.90†" in text
    assert "99.00†" not in text
    assert "[red]a[/]" in text
    assert LEGEND in " ".join(text.split())


def test_terminal_and_markdown_say_how_it_was_measured() -> None:
    made = {"precision": "bf16", "device": "cpu", "input": "112x112 RGB, -1..1", "resize": True, "images": 7701}
    made |= {"flip": False, "excluded_people": 423, "excluded_pairs": 1759}
    of_model = Report("LFW", (Metric("accuracy", 0.99),), made)
    said = (
        "bf16 on cpu; 112x112 RGB, -1..1 (resized); without mirrored images; 7,701 images; "
        "without the 1,759 pairs of 423 people"
    )
    assert metric_text.conditions(of_model) == said
    assert said in " ".join(printed(report.render_report(of_model)).split())
    assert said in as_markdown({"model": [of_model]}, compare({"model": [of_model]}))
    assert metric_text.conditions(Report("LFW", (Metric("accuracy", 0.99),))) == ""
