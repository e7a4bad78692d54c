"""onnxruntime in the place of PyTorch: a model is exported once, kept, and computed by it from then on."""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from facelab.data.synthetic.cache import cache_folder
from facelab.errors import ConfigError
from facelab.export.export import ExportOptions, export_model
from facelab.export.parity import LEAST_COSINE
from facelab.model.export_record import read_record
from facelab.model.exported_network import ExportedNetwork
from facelab.model.face_model import FaceModel
from facelab.model.onnx_file import onnx_network, require_onnxruntime
from facelab.test_protocol.extraction.forward import model_hash

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def through_onnxruntime(model: FaceModel) -> FaceModel:
    """The same model, computed by onnxruntime on the CPU.

    The file lies in ``FACELAB_CACHE``, else in the user's cache folder, under a hash of the network and of the versions
    that write it.

    Raises:
        ConfigError: If a package is missing, the network cannot be exported, or it is on another device.
        DataError: If its embeddings differ there.
    """
    if isinstance(model.network, ExportedNetwork):
        return model
    if model.device.type != "cpu":
        raise ConfigError(
            f"onnxruntime computes on the CPU, but '{model.name}' is on {model.device}; take --device cpu."
        )
    require_onnxruntime()
    made_of = f"{model_hash(model.network)} {LEAST_COSINE} {[version(name) for name in PACKAGES]}"
    path = cache_folder() / "exports" / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.onnx"
    if not path.is_file():
        _export_once(model, path)
    content = path.read_bytes()
    record = read_record(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"), str(path))
    network = onnx_network(content, record)
    return FaceModel(network, model.name, model.card, model.device, model.source, model.calibration)


def _export_once(model: FaceModel, path: Path) -> None:
    """Export under another name first: processes that start together must not find each other's half."""
    own = path.with_name(f"{path.stem}.{os.getpid()}.onnx")
    export_model(model, own, ExportOptions())
    for suffix in (".json", ""):
        own.with_name(f"{own.name}{suffix}").replace(path.with_name(f"{path.name}{suffix}"))
