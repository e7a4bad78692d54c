"""Every backbone, exported to ONNX, gives in onnxruntime what it gives here, for any number of images."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from facelab.backbone.base import BACKBONES, Backbone

pytest.importorskip("onnx", reason="exporting needs onnx: pip install 'facelab[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="comparing needs onnxruntime: pip install 'facelab[export]'")
SMALL: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "small.yaml").read_text())
QUICK = (
    "ViT",
)  # seconds; what torch.export makes of the others takes two minutes, and MobileFaceNet is exported elsewhere


def images(batch: int) -> Tensor:
    return torch.rand(batch, 3, 32, 40, generator=torch.Generator().manual_seed(batch)) * 2 - 1


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    name: str = request.param
    options = {"input_spec": {"height": 32, "width": 40}, "feat_dim": 16, **SMALL.get(name, {})}
    built = BACKBONES.build(name, options)
    with torch.no_grad():  # statistics of a new network would leave out what BatchNorm does
        built.train()(images(8))
    return built.eval()


def check(model: bytes, network: Backbone) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        (found,) = session.run(None, {"image": images(batch).numpy()})
        with torch.no_grad():
            expected = network(images(batch))
        assert float((torch.from_numpy(found) - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.filterwarnings("ignore")  # the exporter is being replaced, and traces shapes that never change
@pytest.mark.parametrize("network", BACKBONES.names(), indirect=True)
def test_traced(network: Backbone) -> None:
    file = io.BytesIO()
    axes = {"image": {0: "batch"}, "embedding": {0: "batch"}}
    names = {"input_names": ["image"], "output_names": ["embedding"]}
    torch.onnx.export(network, (images(2),), file, dynamo=False, dynamic_axes=axes, **names)  # type: ignore[arg-type]
    check(file.getvalue(), network)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "network",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BACKBONES.names()],
    indirect=True,
)
def test_exported(network: Backbone) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install 'facelab[export]'")
    shapes = {"image": {0: torch.export.Dim.DYNAMIC}}
    with torch.no_grad():
        program = torch.onnx.export(
            network, (images(2),), dynamo=True, input_names=["image"], dynamic_shapes=shapes, verbose=False
        )
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    check(file.getvalue(), network)
