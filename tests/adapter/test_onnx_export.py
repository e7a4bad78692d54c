"""Networks with experts, exported to ONNX, give in onnxruntime what they give here, for any number of images."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import GATES
from facelab.backbone.base import BACKBONES
from facelab.quality.card import ScorerCard

pytest.importorskip("onnx", reason="exporting needs onnx: pip install 'facelab[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="comparing needs onnxruntime: pip install 'facelab[export]'")
INPUTS = ["image", "quality"]
# Small networks: convolutions and a linear layer; tokens; windows, of which each image has several rows.
FAMILIES: dict[str, dict[str, Any]] = {
    "IResNet": {"depth": 18, "width": 0.125},
    "ViT": {"patch": 8, "dim": 16, "depth": 1, "heads": 2},
    "Swin": {"patch": 4, "dim": 16, "depths": [1], "heads": [2], "window": 2},
}
OPTIONS: list[dict[str, Any]] = [{}, {"experts": "low", "joined": 0.5}]


def adapted(family: str, options: dict[str, Any]) -> AdaptedBackbone:
    torch.manual_seed(0)
    size = {"input_spec": {"height": 32, "width": 32}, "feat_dim": 16}
    gate = GATES.build("learned", {})
    gate.calibrate([0.1, 0.2, 0.8, 0.9], ScorerCard(name="test", low=0, high=1))
    common = {"rank": 2, "kinds": ["linear", "conv"], "initial": "trunc_normal"}
    if family == "ViT":
        common["kinds"] = ["linear"]
    network = BACKBONES.build(family, {**FAMILIES[family], **size})
    return AdaptedBackbone(network, ADAPTERS.build("DualLoRA", common | options), gate).eval()


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, 3, 32, 32, generator=generator) * 2 - 1, torch.rand(batch, generator=generator)


def check(model: bytes, network: AdaptedBackbone) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        given = inputs(batch)
        (found,) = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, given, strict=True)})
        with torch.no_grad():
            expected = network(*given)
        assert float((torch.from_numpy(found) - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.filterwarnings("ignore")  # the exporter is being replaced
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_traced(family: str, options: dict[str, Any]) -> None:
    network, file = adapted(family, options), io.BytesIO()
    axes = {name: {0: "batch"} for name in (*INPUTS, "embedding")}
    names = {"input_names": INPUTS, "output_names": ["embedding"]}
    torch.onnx.export(network, inputs(2), file, dynamo=False, dynamic_axes=axes, **names)  # type: ignore[arg-type]
    check(file.getvalue(), network)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [pytest.param("IResNet", marks=pytest.mark.slow), "ViT", "Swin"])
def test_exported(family: str) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install 'facelab[export]'")
    network, file = adapted(family, {}), io.BytesIO()
    shapes = {name: {0: torch.export.Dim.DYNAMIC} for name in INPUTS}
    with torch.no_grad():
        program = torch.onnx.export(
            network, inputs(2), dynamo=True, input_names=INPUTS, dynamic_shapes=shapes, verbose=False
        )
    assert program is not None
    program.save(file)
    check(file.getvalue(), network)
