"""ONNX files from anybody: what is no model of ours, or harms, is answered with one sentence."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import facelab
from facelab.errors import CheckpointError
from facelab.model import onnx_file
from facelab.model.export_record import ExportRecord, FaceInput, TensorNote

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'facelab[export]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'facelab[export]'")
onnx_trial = importlib.import_module("facelab.model.onnx_trial")

RECORD = ExportRecord(
    facelab="0",
    model="made",
    backbone="None",
    precision="fp32",
    preprocessing="outside",
    flip=False,
    face=FaceInput(height=8, width=8, colour="RGB", mean=127.5, std=127.5, face_height=8),
    inputs=[TensorNote(name="image", dtype="float32", shape=["batch", 3, 8, 8], meaning="")],
    outputs=[],
    embedding_size=192,
)


def graph(
    record: str | None,
    *,
    side: int = 8,
    batch: int | str = "batch",
    nodes: Sequence[Any] = (),
    weights: Sequence[Any] = (),
) -> Any:
    """A model whose embedding is the image itself."""
    make = onnx.helper
    axes = [make.make_tensor_value_info("image", 1, [batch, 3, side, side])]
    nodes = [
        *(nodes or [make.make_node("Flatten", ["image"], ["flat"])]),
        make.make_node("LpNormalization", ["flat"], ["embedding"], axis=1, p=2),
        make.make_node("ReduceL2", ["flat", "axis"], ["norm"], keepdims=0),
    ]
    outputs = [make.make_tensor_value_info("embedding", 1, ["batch", None])]
    outputs.append(make.make_tensor_value_info("norm", 1, ["batch"]))
    axis = onnx.numpy_helper.from_array(np.array([1]), "axis")
    body = make.make_graph(nodes, "g", axes, outputs, [axis, *weights])
    model = make.make_model(body, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    if record is not None:
        make.set_model_props(model, {"facelab": record})
    return model


def external() -> Any:
    tensor = onnx.numpy_helper.from_array(np.zeros(192, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    node = onnx.helper.make_node("Flatten", ["image"], ["whole"])
    return graph(RECORD.text(), nodes=[node, onnx.helper.make_node("Add", ["whole", "w"], ["flat"])], weights=[tensor])


def huge() -> Any:
    """A constant of 40 TB, from a file of some bytes."""
    make = onnx.helper
    size = onnx.numpy_helper.from_array(np.array([10_000_000_000_000]), "size")
    nodes = [
        make.make_node("Flatten", ["image"], ["whole"]),
        make.make_node("ConstantOfShape", ["size"], ["zeros"]),
        make.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        make.make_node("Add", ["whole", "sum"], ["flat"]),
    ]
    return graph(RECORD.text(), nodes=nodes, weights=[size])


def of_two() -> Any:
    """A graph that takes any number of images, and computes two embeddings."""
    rows = onnx.numpy_helper.from_array(np.array([2, 192]), "rows")
    return graph(RECORD.text(), nodes=[onnx.helper.make_node("Reshape", ["image", "rows"], ["flat"])], weights=[rows])


def always_two() -> Any:
    """A graph that looks at no image."""
    faces = onnx.numpy_helper.from_array(np.ones((2, 192), np.float32), "faces")
    return graph(RECORD.text(), nodes=[onnx.helper.make_node("Identity", ["faces"], ["flat"])], weights=[faces])


def written(model: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def test_a_file_with_a_record_is_a_model(tmp_path: Path) -> None:
    model = facelab.load(written(graph(RECORD.text()), tmp_path))
    image = np.full((1, 8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(model.embed(image, unit=False), np.ones((1, 192)), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "problem"), [(lambda: graph(None), "no record of facelab"), (external, "other files")]
)
def test_what_is_no_model_of_ours(model: Any, problem: str) -> None:
    found = onnx_trial.examine(model().SerializeToString(), "facelab")
    assert problem in found["problem"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (of_two, r"onnxruntime cannot compute 3 embeddings \(.*Reshape"),
        (always_two, r"the exported model 'made' gives \[2, 192\] embeddings and \[2\] norms for 3 images"),
    ],
)
def test_what_two_images_of_a_trial_do_not_show(model: Any, message: str) -> None:
    network = onnx_file.onnx_network(model().SerializeToString(), RECORD)
    assert network(torch.ones(2, 3, 8, 8)).shape == (2, 192)
    with pytest.raises(CheckpointError, match=message):
        network(torch.ones(3, 3, 8, 8))


@pytest.mark.parametrize("content", [b"no protobuf at all", huge().SerializeToString()])
def test_what_harms_ends_another_process(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be used as a model: .*write one with: facelab export"):
        facelab.load(written(content, tmp_path))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: graph('{"format": 2}'), "has a record of format 2; this facelab reads format 1"),
        (lambda: graph('{"format": 1}'), "the record of '.*' cannot be used: 'facelab': Field required"),
        (lambda: graph(RECORD.text(), side=9), r"speaks of .*\[2, 3, 8, 8\].*, but its graph has .*\[2, 3, 9, 9\]"),
    ],
)
def test_records_that_are_wrong(model: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_tried", lambda content, _: onnx_trial.examine(content, "facelab"))
    with pytest.raises(CheckpointError, match=message):
        facelab.load(written(model(), tmp_path))


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="none.onnx' cannot be read"):
        facelab.load(tmp_path / "none.onnx")
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 10)
    with pytest.raises(CheckpointError, match="more than the 10 that are read"):
        facelab.load(written(graph(RECORD.text()), tmp_path))


def test_a_graph_that_does_not_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "SECONDS", 0.01)
    with pytest.raises(CheckpointError, match="takes more than 0.01 s for two images"):
        facelab.load(written(graph(RECORD.text()), tmp_path))
