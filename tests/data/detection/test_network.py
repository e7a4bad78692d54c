"""Networks give the same for an image whatever sizes came before it."""

import errno
from pathlib import Path

import numpy as np
import pytest

from facelab.data.detection.network import Network
from facelab.errors import DataError

onnx = pytest.importorskip("onnx")


def test_layers_keep_their_weights_when_the_size_changes(tmp_path: Path) -> None:
    """OpenCV multiplies those of a transposed convolution by a normalisation's once for each size."""
    helper, kind, random = onnx.helper, onnx.TensorProto, np.random.default_rng(0)
    values = {"w": random.normal(size=(3, 3, 2, 2))} | {name: random.uniform(0.5, 2, 3) for name in "abcd"}
    nodes = [
        helper.make_node("ConvTranspose", ["image", "w"], ["up"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["up", *"abcd"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("image", kind.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("out", kind.FLOAT, [1, 3, "rows", "columns"])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    path = tmp_path / "up.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    network = Network(path.read_bytes(), "up.onnx")
    image = random.normal(size=(1, 3, 8, 8)).astype(np.float32)
    (first,) = network.run(image)
    scale, shift, mean, variance = (values[name][:, None, None] for name in "abcd")
    up = np.einsum("chw,cdij->dhiwj", image[0], values["w"]).reshape(3, 16, 16)
    assert np.abs(first[0] - ((up - mean) / np.sqrt(variance + 1e-5) * scale + shift)).max() < 1e-4
    network.run(np.zeros((1, 3, 16, 8), np.float32))
    assert (network.run(image)[0] == first).all()


def test_a_full_folder_of_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"network\.onnx: cannot be written \(No space left on device\); .* TMPDIR\.$"):
        Network(b"any", "any.onnx")
