"""PNG plots show their lines."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.report.charts import Chart, Line
from facelab.test_protocol.report.line_style import LineStyle
from facelab.test_protocol.report.plots import plot

X = np.linspace(0.01, 1, 20)


def chart(**changes: object) -> Chart:
    lines = (Line("a_$x^2 & <i>", X, 100 * X), Line("b", X, 50 * X, style=LineStyle("#d55e00")))
    return Chart("roc", "T$1", "x", "y", lines, (0.01, 1.0), (0.0, 100.0), **changes)  # type: ignore[arg-type]


def has_colour(png: Path, red: int, green: int, blue: int) -> bool:
    pixels = cv2.imread(str(png))
    assert pixels is not None
    return bool((np.abs(pixels.astype(int)[:, :, ::-1] - (red, green, blue)).max(axis=2) < 12).any())


@pytest.mark.parametrize(
    "changes",
    [{}, {"x_scale": "log"}, {"x_scale": "probit"}, {"shape": "steps", "marks": (("m", 0.5),)}],
)
def test_lines_have_their_colours(changes: dict[str, object], tmp_path: Path) -> None:
    png = plot([chart(**changes)], tmp_path / "plots" / "a.png")
    assert has_colour(png, 0x00, 0x72, 0xB2)
    assert has_colour(png, 0xD5, 0x5E, 0x00)
    assert not has_colour(png, 0x00, 0x9E, 0x73)


def test_an_empty_frame_says_why(tmp_path: Path) -> None:
    empty = Chart("det", "LFW: DET", "x", "y", (), (0.1, 1.0), (0.1, 1.0), x_scale="probit", y_scale="probit")
    bare, told = (cv2.imread(str(plot([one], tmp_path / "a.png"))) for one in (empty, replace(empty, note="no errors")))
    assert bare is not None
    assert told is not None
    differs = np.flatnonzero((bare != told).any(axis=(0, 2)))
    assert differs.mean() == pytest.approx(bare.shape[1] * 0.55, rel=0.05)  # in the middle of the axes


def test_bars(tmp_path: Path) -> None:
    bars = (Line("same pairs", np.linspace(0, 1, 5), np.array([1.0, 2, 3, 4])),)
    picture = Chart("scores", "s", "x", "y", bars, (0.0, 1.0), (0.0, 5.0), shape="bars")
    png = plot([picture], tmp_path / "a.png")
    assert has_colour(png, 0x00, 0x72, 0xB2)


def test_several_charts_share_a_picture(tmp_path: Path) -> None:
    one, three = (cv2.imread(str(plot([chart()] * n, tmp_path / f"{n}.png"))) for n in (1, 3))
    assert one is not None
    assert three is not None
    assert three.shape[1] > one.shape[1]
    assert three.shape[0] > one.shape[0]


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: there is nothing to draw"):
        plot([], tmp_path / "a.png")
