"""Each adapter, exported: merged where all images are treated alike, with its gate where they are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import facelab
from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import GATES
from facelab.data.synthetic.source import SyntheticFaces
from facelab.export.export import ExportOptions, export_model
from facelab.export.graphs import prepared_network
from facelab.iqa.base import SCORERS
from facelab.model.face_model import FaceModel
from facelab.weights.card import adapter_card

pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install 'facelab[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime: pip install 'facelab[export]'")

CNNIQA_LIVE = Path("data", "weights", "cnniqa_live.safetensors")
SILENT = {"rank": 2, "experts": "low", "crossing": 1.0, "joined": 0.7, "kinds": ["linear", "dense_conv"]}
ADAPTED: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "full": ("Full", {}, None),
    "lora": ("LoRA", {"rank": 2}, None),
    "dual": ("DualLoRA", {"rank": 2}, "sigmoid"),
    "dual, linear gate": ("DualLoRA", {"rank": 2}, "linear"),
    "silent expert": ("DualLoRA", SILENT, "learned"),
    "silent expert, added": ("DualLoRA", SILENT | {"added": True}, "sigmoid"),
}


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    drawn = SyntheticFaces(identities=6, per_identity=1, size=64, split="test")
    return np.stack([drawn.read(row) for row in range(6)])


@pytest.fixture(scope="module")
def adapted(model_of: Callable[..., FaceModel]) -> Callable[..., FaceModel]:
    """A function that adapts a MobileFaceNet of 64x64, with updates that count."""

    def make(name: str, scorer: dict[str, Any] | None = None) -> FaceModel:
        adapter, options, gate_name = ADAPTED[name]
        base = model_of("MobileFaceNet", width=0.25, input_spec={"height": 64, "width": 64})
        gate = None if gate_name is None else GATES.build(gate_name, {})
        judge = SCORERS.build(*next(iter((scorer or {"Sharpness": {}}).items())))
        if gate is not None:
            drawn = SyntheticFaces(identities=4, per_identity=4, size=64)
            pixels = torch.from_numpy(np.stack([drawn.read(row) for row in range(16)])).permute(0, 3, 1, 2)
            gate.calibrate(judge.score(pixels).numpy(), judge.card)  # type: ignore[attr-defined]
        network = AdaptedBackbone(base.network, ADAPTERS.build(adapter, options), gate)
        generator = torch.Generator().manual_seed(1)
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator) * parameter.abs().mean()
        for layer in network.low_rank_layers().values():
            torch.nn.init.normal_(layer.low_rank_up, std=0.3, generator=generator)
        card = dict(base.card) | adapter_card(network, {adapter: options}, gate_name and {gate_name: {}})
        if gate is not None and scorer is not None:
            card["scorer"] = {"card": judge.card.model_dump(), "spec": scorer}
        return FaceModel(network, name, card, torch.device("cpu"))

    return make


@pytest.mark.parametrize("name", ADAPTED)
def test_a_table_leaves_the_scores_to_the_user(
    name: str, adapted: Callable[..., FaceModel], faces: np.ndarray, tmp_path: Path
) -> None:
    model = adapted(name)
    done = export_model(model, tmp_path / "x.pt", ExportOptions("torchscript", preprocessing="inside"))
    gated = model.network.needs_quality
    assert [note.name for note in done.record.inputs] == (["image", "quality"] if gated else ["image"])
    assert done.record.adapter == model.card["adapter"]
    assert done.record.embedding_size == model.feat_dim
    assert done.parity.least > 0.99999
    if gated:
        assert done.record.quality is not None
        assert not done.record.quality.inside
        assert "by Sharpness, 0 to no limit, higher is better (version '2 sigma=1')" in done.record.inputs[1].meaning
        embeddings = model.embed(faces, quality=[0.0] * 6), model.embed(faces, quality=[9.0] * 6)
        assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01  # otherwise parity would say nothing of the gate
    else:
        assert not isinstance(prepared_network(model.network), AdaptedBackbone)


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", ["inside", "outside"])
@pytest.mark.parametrize("name", ADAPTED)
def test_onnx_scores_faces_itself(
    name: str, preprocessing: Any, adapted: Callable[..., FaceModel], faces: np.ndarray, tmp_path: Path
) -> None:
    model = adapted(name, {"Sharpness": {}})
    done = export_model(model, tmp_path / "x.onnx", ExportOptions(preprocessing=preprocessing))
    inputs = ["image", "quality"] if model.network.needs_quality and preprocessing == "outside" else ["image"]
    assert [note.name for note in done.record.inputs] == inputs
    loaded = facelab.load(done.path)
    np.testing.assert_allclose(loaded.embed(faces), model.embed(faces), atol=1e-5)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_a_scorer_that_is_a_network_is_inside_too(
    form: str, adapted: Callable[..., FaceModel], faces: np.ndarray, shared_root: Path, tmp_path: Path
) -> None:
    model = adapted("dual", {"CNNIQA": {"weights": str(shared_root / CNNIQA_LIVE)}})
    suffix = {"onnx": ".onnx", "torchscript": ".pt"}[form]
    done = export_model(model, tmp_path / f"x{suffix}", ExportOptions(form, preprocessing="inside"))
    assert [note.name for note in done.record.inputs] == ["image"]
    assert done.record.quality is not None
    assert done.record.quality.spec is None  # its file lies on this machine
    if form == "onnx":
        np.testing.assert_allclose(facelab.load(done.path).embed(faces), model.embed(faces), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTED)
def test_half_precision_and_int8(name: str, adapted: Callable[..., FaceModel], tmp_path: Path) -> None:
    model = adapted(name, {"Sharpness": {}})
    full = export_model(model, tmp_path / "fp32.onnx", ExportOptions(preprocessing="inside"))
    half = export_model(model, tmp_path / "fp16.onnx", ExportOptions(precision="fp16", preprocessing="inside"))
    whole = ExportOptions(precision="int8", preprocessing="inside", least_cosine=0.8)
    eighth = export_model(model, tmp_path / "int8.onnx", whole)
    sizes = [one.path.stat().st_size for one in (full, half, eighth)]
    assert sizes[1] < 0.8 * sizes[0]
    assert full.parity.least > 0.99999
    assert full.parity.least >= half.parity.least > 0.999
    assert half.parity.least > eighth.parity.least
