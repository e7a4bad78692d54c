"""Exported models give what the model gives; what differs is not written."""

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import facelab
from facelab.cost.network_cost import network_cost
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError
from facelab.export import backend
from facelab.export.export import ExportOptions, export_model
from facelab.export.faces import open_faces
from facelab.export.parity import fed
from facelab.export.record import record_of
from facelab.model.export_record import read_record
from facelab.model.face_model import FaceModel
from facelab.test_protocol.extraction.extraction_settings import ExtractionSettings
from facelab.weights.calibration import Calibration

pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install 'facelab[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime: pip install 'facelab[export]'")


ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def faces() -> np.ndarray:
    drawn = SyntheticFaces(identities=5, per_identity=1, size=32, split="test")
    return np.stack([drawn.read(row) for row in range(5)])


def test_what_lies_beside_the_file_says_how_it_is_fed(tiny: FaceModel, exported: Path, faces: np.ndarray) -> None:
    note = json.loads(exported.with_name("tiny.onnx.json").read_text())
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    inside = json.loads(session.get_modelmeta().custom_metadata_map["facelab"])
    assert {name: note[name] for name in inside} == inside
    face = note["face"]
    assert (face["height"], face["width"], face["colour"], face["std"]) == (32, 32, "BGR", 128.0)
    assert note["embedding_size"] == 16
    assert len(note["alignment"]["landmarks"]) == 5
    assert note["parity"]["least"] > 0.99999
    pixels = faces[..., ::-1].astype(np.float32)
    image = ((pixels - face["mean"]) / face["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    for count in (1, 5):
        embedding, norm = session.run(None, {"image": image[:count]})
        np.testing.assert_allclose(embedding, tiny.embed(faces[:count]), atol=1e-5)
        raw = tiny.embed(faces[:count], unit=False)
        np.testing.assert_allclose(norm, np.linalg.norm(raw, axis=1), rtol=1e-5)


def test_the_twenty_lines_of_the_page_need_no_facelab(
    tiny: FaceModel, exported: Path, faces: np.ndarray, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    script = tmp_path / "stranger.py"
    script.write_text(
        f"import sys\nsys.modules['facelab'] = sys.modules['torch'] = None  # not installed there\n{lines}"
    )
    photos = [tmp_path / f"{number}.png" for number in range(2)]
    for photo, pixels in zip(photos, faces, strict=False):
        cv2.imwrite(str(photo), pixels[:, :, ::-1])
    said = subprocess.run(
        [sys.executable, script, exported, *photos], capture_output=True, text=True, check=True
    ).stdout
    embeddings = tiny.embed(photos)
    np.testing.assert_allclose(json.loads(said), embeddings @ embeddings.T, atol=1e-3)


def test_it_is_loaded_like_any_model(tiny: FaceModel, exported: Path, faces: np.ndarray, tmp_path: Path) -> None:
    loaded = facelab.load(exported)
    assert (loaded.name, loaded.feat_dim, loaded.input_spec) == ("tiny.onnx", 16, tiny.input_spec)
    for options in ({}, {"flip": True}, {"unit": False}):
        np.testing.assert_allclose(loaded.embed(faces, **options), tiny.embed(faces, **options), atol=1e-5)
    images = SyntheticFaces(identities=5, per_identity=1, size=32, split="test")
    how = ExtractionSettings(torch.device("cpu"))
    said, usual = (how.conditions(one.network, images) for one in (loaded, tiny))
    assert said["backend"] == f"onnxruntime {onnxruntime.__version__}"
    assert "backend" not in usual
    assert said["preprocessing"] != usual["preprocessing"]
    cost = network_cost(loaded.network, (32, 32))
    assert cost == network_cost(tiny.network, (32, 32))
    with pytest.raises(ConfigError, match=r"is an exported model, which is a file already; copy '.*tiny.onnx'"):
        loaded.save(tmp_path / "again")
    with pytest.raises(ConfigError, match="export the run that it came from"):
        export_model(loaded, tmp_path / "again.onnx", ExportOptions())
    with pytest.raises(ConfigError, match="takes no adapters"):
        facelab.load(exported, adapter="lora.safetensors")


def test_what_embeds_otherwise_is_not_written(tiny: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that changed since: the file that was made is gone, and so is its folder."""

    class Drifted:
        def __init__(self, model: FaceModel) -> None:
            self.__dict__ |= vars(model)
            self.input_spec, self.feat_dim = model.input_spec, model.feat_dim

        def embed(self, images: np.ndarray, **_: Any) -> np.ndarray:
            return np.eye(16, dtype=np.float32)[np.arange(len(images)) % 16]

    with pytest.raises(DataError, match=r"is not written, as its embeddings differ too much: cosine .* least"):
        export_model(Drifted(tiny), tmp_path / "new" / "x.pt", ExportOptions("torchscript"))  # type: ignore[arg-type]
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({}, "x.bin", r"name ends in \.onnx"),
        ({"format": "tensorrt"}, "x.onnx", "Known: onnx, openvino, torchscript"),
        ({"format": "torchscript", "precision": "int8"}, "x.pt", "--precision fp32 or fp16; int8 goes to onnx"),
        ({"least_cosine": 2.0}, "x.onnx", "--least-cosine is 2.0"),
    ],
)
def test_refused_before_any_work(
    options: dict[str, Any], name: str, message: str, tiny: FaceModel, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        export_model(tiny, tmp_path / name, ExportOptions(**options))


def test_nothing_is_overwritten(tiny: FaceModel, exported: Path) -> None:
    before = exported.read_bytes()
    with pytest.raises(DataError, match="exists already; choose another name"):
        export_model(tiny, exported, ExportOptions())
    assert exported.read_bytes() == before


def test_torchscript_runs_without_facelab(tiny: FaceModel, faces: np.ndarray, tmp_path: Path) -> None:
    options = ExportOptions("torchscript", preprocessing="inside", flip=True)
    done = export_model(tiny, tmp_path / "tiny.pt", options)
    extra = {"facelab": ""}
    program = torch.jit.load(str(done.path), _extra_files=extra)
    assert read_record(extra["facelab"], "x") == done.record
    embedding, norm = program(torch.from_numpy(faces[:3]))
    np.testing.assert_allclose(embedding.numpy(), tiny.embed(faces[:3], flip=True), atol=1e-5)
    np.testing.assert_allclose(norm, np.linalg.norm(tiny.embed(faces[:3], flip=True, unit=False), axis=1), rtol=1e-5)


def test_a_part_of_the_face_is_cut_by_the_record_alone(model_of: Callable[..., FaceModel], tmp_path: Path) -> None:
    spec = {"height": 32, "width": 48, "face_height": 48}
    model = model_of("MobileFaceNet", width=0.25, input_spec=spec)
    done = export_model(model, tmp_path / "upper.pt", ExportOptions("torchscript"))
    seen = open_faces(model, None, "drawn faces", 4)
    assert seen.pixels.shape == (4, 48, 48, 3)
    assert fed(done.record, seen)["image"].shape == (4, 3, 32, 48)
    assert replace(done.parity, bound=0).least > 0.99999


def test_a_backend_is_exported_once_and_kept(
    tiny: FaceModel, exported: Path, faces: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def export(_: FaceModel, out: Path, __: ExportOptions) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", ".json"):
            shutil.copy(f"{exported}{suffix}", f"{out}{suffix}")
        written.append(out)

    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))
    monkeypatch.setattr(backend, "export_model", export)
    first, second = (backend.through_onnxruntime(tiny) for _ in range(2))
    assert len(written) == 1
    assert not written[0].exists()  # it has its name now
    assert (first.name, first.card, first.source) == (tiny.name, tiny.card, tiny.source)
    np.testing.assert_array_equal(first.embed(faces), second.embed(faces))
    np.testing.assert_allclose(first.embed(faces), tiny.embed(faces), atol=1e-5)
    assert backend.through_onnxruntime(first) is first


def calibration(model: FaceModel, flip: bool) -> Calibration:
    measured = {"fmr": 1e-3, "threshold": 0.4, **dict.fromkeys(("real_fmr", "fmr_low", "fmr_high"), 1e-3)}
    measured |= dict.fromkeys(("fnmr", "fnmr_low", "fnmr_high"), 0.1)
    counts = {"same": 10, "different": 10_000, "people": None, "folds": 0, "impostors": "listed"}
    words = {"input": model.input_spec.describe(), "alignment": "unknown", "protocol": "P", "image_set": "x"}
    numbers = {"slope": 10.0, "offset": -3.0, "cllr": 0.1, "min_cllr": 0.1, "weights": "0" * 32, "version": 1}
    how = {"flip": flip, "resize": False, "any_photo": False}
    return Calibration(thresholds=[measured], **counts, **words, **numbers, **how)


def test_thresholds_go_along_where_they_hold(tiny: FaceModel, faces: np.ndarray, tmp_path: Path) -> None:
    measured = calibration(tiny, flip=True)
    model = FaceModel(tiny.network, "tiny", tiny.card, tiny.device, calibration=measured)
    how: dict[str, Any] = {"preprocessing": "outside", "quality": None}
    assert record_of(model, precision="fp16", flip=True, **how).calibration == measured
    assert record_of(model, precision="fp32", flip=False, **how).calibration is None
    assert record_of(model, precision="int8", flip=True, **how).calibration is None
    record = record_of(model, precision="fp32", flip=True, **how)
    assert read_record(record.text(), "x") == record


def test_a_full_disk_is_said_and_leaves_nothing(
    tiny: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)  # PyTorch's own writer ends the process
    with pytest.raises(DataError, match=r"tiny\.pt' cannot be written \(No space left on device\)"):
        export_model(tiny, tmp_path / "tiny.pt", ExportOptions("torchscript"))
    assert not list(tmp_path.iterdir())
