"""Models side by side: one bar for each model and rate, nothing for what is missing or no rate."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from facelab.test_protocol.comparison import Cell, Comparison
from facelab.test_protocol.side_by_side import plot_side_by_side

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


def test_one_model_has_nothing_beside_it(tmp_path: Path) -> None:
    assert plot_side_by_side(Comparison(COLUMNS, (BASE,)), tmp_path / "bars.png") is None
    assert plot_side_by_side(Comparison(COLUMNS[::3], (BASE[::3], DUAL[::3])), tmp_path / "bars.png") is None
    assert not (tmp_path / "bars.png").exists()
