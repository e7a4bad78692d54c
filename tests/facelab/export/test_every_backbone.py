"""Every backbone of the registry goes to ONNX by the command's own way, and comes back with its embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import facelab
from facelab.backbone.base import BACKBONES
from facelab.data.synthetic.source import SyntheticFaces
from facelab.export.export import ExportOptions, export_model
from facelab.model.face_model import FaceModel

pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install 'facelab[export]'")
pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime: pip install 'facelab[export]'")
SMALL: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "backbone" / "small.yaml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", BACKBONES.names())
def test_exported(name: str, precision: Any, model_of: Callable[..., FaceModel], tmp_path: Path) -> None:
    model = model_of(name, **SMALL.get(name, {}))
    options = ExportOptions(precision=precision, preprocessing="inside")
    loaded = facelab.load(export_model(model, tmp_path / "x.onnx", options).path)
    drawn = SyntheticFaces(identities=5, per_identity=1, size=32, split="test")
    faces = np.stack([drawn.read(row) for row in range(5)])
    bound = {"fp32": 1e-5, "fp16": 0.03}[precision]
    np.testing.assert_allclose(loaded.embed(faces), model.embed(faces), atol=bound)
