"""Names of any kind are drawn without a word from matplotlib, and leave room for the plot."""

import warnings
from pathlib import Path

import cv2
import pytest

from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report.charts import Chart, Line
from facelab.test_protocol.report.comparison import compare
from facelab.test_protocol.report.drawing import LONGEST_NAME, MOST_NAMED, short_name
from facelab.test_protocol.report.plots import plot
from facelab.test_protocol.report.side_by_side import plot_side_by_side

NAMES = ["\N{CJK UNIFIED IDEOGRAPH-6A21}", "\U0001f600", "x" * 500, "a\nb\tc", "$\\frac{$", "_hidden", ""]


def lines(names: list[str]) -> tuple[Line, ...]:
    import numpy as np

    return tuple(Line(name, np.array([0.0, 1.0]), np.array([0.0, float(n)])) for n, name in enumerate(names))


@pytest.mark.parametrize("names", [NAMES, [f"model {n} {'y' * 100}" for n in range(100)]])
def test_names_of_any_kind_are_drawn_in_silence(names: list[str], tmp_path: Path) -> None:
    chart = Chart("roc", "\N{CJK UNIFIED IDEOGRAPH-6A21}" * 300, "x", "y", lines(names), (0, 1), (0, 1))
    reports = {name: [Report("P" * 300, (Metric("accuracy", 0.5),))] for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot([chart] * 3, tmp_path / "a.png")
        bars = plot_side_by_side(compare(reports), tmp_path / "b.png")
    for path in (tmp_path / "a.png", bars):
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.std() > 5


def test_more_bars_than_a_picture_can_hold_are_not_drawn(tmp_path: Path) -> None:
    reports = {f"{n}": [Report("P", (Metric("accuracy", 0.5),))] for n in range(601)}
    assert plot_side_by_side(compare(reports), tmp_path / "b.png") is None


def test_a_legend_says_how_many_it_does_not_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("facelab.test_protocol.report.plots.save_figure", lambda figure, png: drawn.append(figure))
    names = [f"m{n}" for n in range(30)]
    plot([Chart("roc", "t", "x", "y", lines(names), (0, 1), (0, 1))], tmp_path / "a.png")
    shown = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert shown == [*names[: MOST_NAMED - 1], "and 17 more"]


def test_of_long_names_beginning_and_end_are_kept() -> None:
    for whole in ("short", "x" * LONGEST_NAME):
        assert short_name(whole) == whole
    assert len(short_name("x" * (LONGEST_NAME + 1))) == LONGEST_NAME
    shown = [short_name(f"{'run ' * 30}seed {seed}") for seed in range(2)]
    assert [len(name) for name in shown] == [LONGEST_NAME] * 2
    assert shown[0].endswith("seed 0")
    assert shown[0] != shown[1]
