"""Models of seconds, and one of them exported once for all tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab.backbone.base import BACKBONES
from facelab.model.face_model import FaceModel
from facelab.weights.card import model_card

TINY: dict[str, Any] = {"input_spec": {"height": 32, "width": 32, "colour": "BGR", "std": 128.0}, "feat_dim": 16}


@pytest.fixture(scope="session")
def model_of() -> Callable[..., FaceModel]:
    """A function that makes a model of a backbone with weights of its own."""

    def make(name: str, **options: Any) -> FaceModel:
        torch.manual_seed(0)
        network = BACKBONES.build(name, TINY | options)
        with torch.no_grad():  # statistics of a new network would leave out what BatchNorm does
            network.train()(torch.rand(8, 3, *network.input_spec.size) * 2 - 1)
        return FaceModel(network, name.lower(), model_card(name, options, network), torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def tiny(model_of: Callable[..., FaceModel]) -> FaceModel:
    """A MobileFaceNet that takes 32x32 BGR."""
    return model_of("MobileFaceNet", width=0.25)


@pytest.fixture(scope="session")
def exported(tiny: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as ONNX with its preprocessing outside."""
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install 'facelab[export]'")
    pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime: pip install 'facelab[export]'")
    from facelab.export.export import ExportOptions, export_model

    return export_model(tiny, tmp_path_factory.mktemp("onnx") / "tiny.onnx", ExportOptions()).path
