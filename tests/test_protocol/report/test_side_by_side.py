"""Models side by side: one bar for each model and rate, nothing for what is missing or no rate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from facelab.test_protocol.report.comparison import Cell, Comparison
from facelab.test_protocol.report.side_by_side import plot_side_by_side

COLUMNS = ("model", "LFW accuracy [%]", "TinyFace rank-1 [%]", "parameters [M]")
BASE = (Cell("base"), Cell("99.50", 0.995), Cell("10.00", 0.1), Cell("1.3", 1.3e6))
DUAL = (Cell("dual $r$"), Cell("–"), Cell("28.90", 0.289), Cell("1.4", 1.4e6))


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Lengths of the bars that are drawn, by model."""
    drawn: dict[str, list[float]] = {}
    barh = Axes.barh

    def spied(axes: Axes, y: Any, width: Any, *more: Any, label: str, **options: Any) -> Any:
        drawn[label] = list(width)
        return barh(axes, y, width, *more, label=label, **options)

    monkeypatch.setattr(Axes, "barh", spied)
    return drawn


def test_every_rate_is_a_bar(tmp_path: Path, bars: dict[str, list[float]]) -> None:
    path = plot_side_by_side(Comparison(COLUMNS, (BASE, DUAL)), tmp_path / "bars.png")
    assert path is not None
    assert path.stat().st_size > 1000
    assert bars == {"base": pytest.approx([99.5, 10.0]), "dual $r$": pytest.approx([0.0, 28.9])}


def test_error_bars_and_marks_are_those_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, texts = [], []
    hlines, annotate = Axes.hlines, Axes.annotate
    monkeypatch.setattr(Axes, "hlines", lambda *of, **how: (lines.append(of[2:]), hlines(*of, **how))[1])
    monkeypatch.setattr(Axes, "annotate", lambda *of, **how: (texts.append(of[1]), annotate(*of, **how))[1])
    best = (Cell("a"), Cell("99.50 ± 0.25", 0.995, best=True, ends=(0.9925, 0.9975)))
    near = (Cell("b"), Cell("99.25", 0.9925, noise=True))
    plot_side_by_side(Comparison(("model", "LFW accuracy [%]"), (best, near)), tmp_path / "bars.png")
    assert [np.concatenate(ends).tolist() for ends in lines] == [
        [99.25, 99.75],
        [pytest.approx(np.nan, nan_ok=True)] * 2,
    ]
    assert texts == ["99.50", "99.25†"]


def test_one_model_has_nothing_beside_it(tmp_path: Path) -> None:
    assert plot_side_by_side(Comparison(COLUMNS, (BASE,)), tmp_path / "bars.png") is None
    assert plot_side_by_side(Comparison(COLUMNS[::3], (BASE[::3], DUAL[::3])), tmp_path / "bars.png") is None
    assert not (tmp_path / "bars.png").exists()
