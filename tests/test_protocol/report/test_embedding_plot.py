"""Embeddings drawn in two dimensions: places and shares by hand, refusals."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.report.embedding_plot import Shown, plot_embeddings


def shown(people: int = 3) -> Shown:
    """Gallery on the axes; the second probe of each person lies with the next one."""
    axes = np.eye(people, dtype=np.float32)
    number = np.arange(people)
    return Shown(
        axes, number, np.concatenate([axes, np.roll(axes, 1, axis=0)]), np.tile(number, 2), [f"P{n}" for n in number]
    )


def test_half_of_the_probes_are_found() -> None:
    assert shown().found() == 0.5


def test_distances_in_a_plane_are_kept() -> None:
    """Embeddings that lie in a plane of their space lose nothing."""
    plane = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    spread = plane @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0][:2].astype(np.float32)
    gallery, probe, shares = Shown(spread[:3], np.arange(3), spread[3:], np.arange(4), "ABCD").flat()
    assert gallery.shape == (3, 2)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    for left, right in ((0, 1), (1, 2)):
        assert np.linalg.norm(gallery[left] - gallery[right]) == pytest.approx(
            np.linalg.norm(plane[left] - plane[right]), rel=1e-4
        )
    assert np.linalg.norm(gallery[0] - probe[3]) == pytest.approx(np.linalg.norm(plane[0] - plane[6]), rel=1e-4)


def test_a_picture_of_two_models_is_wider_than_one_of_one(tmp_path: Path) -> None:
    sizes = []
    for names in (["before"], ["before", "after $x$"]):
        picture = cv2.imread(str(plot_embeddings(dict.fromkeys(names, shown()), tmp_path / "a.png")))
        assert picture.std() > 0
        sizes.append(picture.shape[1])
    assert sizes[1] == pytest.approx(sizes[0] * (2 * 4.2 + 1.6) / (4.2 + 1.6), rel=0.02)


def test_ten_people_can_be_drawn(tmp_path: Path) -> None:
    assert plot_embeddings({"m": shown(10)}, tmp_path / "a.png").is_file()


def test_axes_people_and_sides_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(
        "facelab.test_protocol.report.embedding_plot.save_figure", lambda figure, _: figures.append(figure)
    )
    one = shown()
    plot_embeddings({"m": replace(one, names=["$x$", "B", "L" * 40])}, tmp_path / "a.png")
    axes = figures[0].axes[0]
    assert axes.get_xlabel() == "first main axis (50% of the spread)"
    assert axes.get_ylabel() == "second main axis (50%)"
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "gallery", "probe", "$x$", "B", "L" * 12 + "…" + "L" * 11,
    ]  # fmt: skip
    assert len(axes.get_xticks()) > 2


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing to draw"):
        plot_embeddings({}, tmp_path / "a.png")
    with pytest.raises(DataError, match="'m' has 11 gallery and 22 probe images of 11 people; .* at most 10 people"):
        plot_embeddings({"m": shown(11)}, tmp_path / "a.png")
