"""Scenes of the benchmark of detectors: the right places are right, and distances are those worked by hand."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from facelab.data.alignment.alignment import align, template
from facelab.data.detection.base import Detector, Faces
from facelab.data.synthetic.source import SyntheticFaces

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("detectors")


@pytest.mark.parametrize("side", [56, 112, 200])
def test_the_face_lies_at_its_right_places(program: ModuleType, side: int) -> None:
    face = SyntheticFaces(identities=1, per_identity=1, size=112).read(0)
    one = program.scene(face, side, 3, 260, 300)
    assert one.photo.shape == (260, 300, 3)
    inner = (slice(12, -12), slice(12, -12))
    away = [
        np.abs(align(one.photo, one.places() + shift * side / 112).astype(int)[inner] - face[inner]).mean()
        for shift in (0, 3, -3)
    ]
    assert 1.3 * away[0] < min(away[1:])
    assert away[0] < 8
    assert program.crop_error(one.places(), one) == pytest.approx(0, abs=1e-9)
    assert program.crop_error(one.places() + np.array([3 * side / 112, 0]), one) == pytest.approx(3, abs=1e-9)


def test_the_nearest_face_counts_if_it_is_near(program: ModuleType) -> None:
    one = program.Scene(np.zeros((200, 200, 3), np.uint8), np.array([[1.0, 0, 10], [0, 1, 10]]))

    class Two(Detector):
        def find(self, _: np.ndarray) -> Faces:
            points = np.stack([template() + 60, template() + 12])
            return Faces(np.array([[0, 0, 9, 9], [0, 0, 9, 9.0]]), np.array([0.9, 0.8]), points)

    assert (program.nearest(Two(), one, 112) == template() + 12).all()
    assert program.nearest(Two(), one, 8) is None


def test_separation_by_hand(program: ModuleType) -> None:
    assert program.separation(np.array([0.6, 0.8]), np.array([-0.1, 0.1])) == pytest.approx(7.0)
