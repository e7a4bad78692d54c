"""OpenVINO's files, read by OpenVINO alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError
from facelab.export.export import ExportOptions, export_model
from facelab.export.openvino_format import OpenVinoFormat
from facelab.model.export_record import read_record
from facelab.model.face_model import FaceModel


@pytest.mark.extras
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_model_in_openvino(precision: Any, tiny: FaceModel, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs openvino: pip install 'facelab[openvino]'")
    options = ExportOptions("openvino", precision, "inside", least_cosine=0.9)
    done = export_model(tiny, tmp_path / "tiny.xml", options)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.xml", "tiny.bin", "tiny.xml.json"}
    model = openvino.Core().read_model(done.path)
    assert read_record(model.get_rt_info(["facelab"]).astype(str), "x") == done.record
    drawn = SyntheticFaces(identities=3, per_identity=1, size=32, split="test")
    faces = np.stack([drawn.read(row) for row in range(3)])
    found = openvino.compile_model(model, "CPU")({"image": faces})["embedding"]
    bound = {"fp32": 0.01, "fp16": 0.03, "int8": 0.3}[precision]  # bf16 where the processor can
    np.testing.assert_allclose(found, tiny.embed(faces), atol=bound)


def test_without_the_package(tiny: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"needs openvino: pip install 'facelab\[openvino\]'"):
        export_model(tiny, tmp_path / "x.xml", ExportOptions("openvino"))
    with pytest.raises(ConfigError, match="needs openvino"):
        OpenVinoFormat().open(tmp_path / "x.xml")
