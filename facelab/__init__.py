"""facelab: train, adapt and benchmark face recognition."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if __name__ != "facelab":
    raise ImportError(f"this package is 'facelab'; import it by that name, not as '{__name__}'")

from facelab.create import add_adapter, create_head, create_model, list_adapters, list_heads, list_models
from facelab.version import __version__

if TYPE_CHECKING:
    from facelab import metrics
    from facelab.model.face_model import FaceModel

Backend = Literal["torch", "onnxruntime"]
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "head").is_dir():
    __path__.append(str(_ROOT))  # a checkout: facelab.head is ../head


def load(source: str | Path, *, backend: Backend = "torch", **options: Any) -> "FaceModel":
    """Load a trained model, ready to embed images, in evaluation mode.

    Args:
        source: Folder of a run, of one of its checkpoints or of a model, or a file of a model (`FaceModel.save`,
            `facelab export`).
        backend: ``onnxruntime`` computes on the CPU, from an export of the model that is made once and kept; files
            ending in ``.onnx`` need no such word.
        options: ``checkpoint``, ``adapter``, ``device`` and ``name`` of `facelab.model.face_model.load_model`.

    Raises:
        CheckpointError: If there is no complete, unharmed checkpoint, or its adapters belong to another model.
        ConfigError: If the model needs something that is not registered here.
    """
    from facelab.model.face_model import load_model

    if backend == "torch":
        return load_model(source, **options)
    from facelab.errors import one_of
    from facelab.export.backend import through_onnxruntime

    one_of("backend", backend, ("torch", "onnxruntime"))
    return through_onnxruntime(load_model(source, **({"device": "cpu"} | options)))


def __getattr__(name: str) -> Any:
    """``facelab.metrics`` without an import of its own; PyTorch is loaded by then and not by ``import facelab``."""
    if name == "metrics":
        return import_module("facelab.metrics")
    raise AttributeError(f"module 'facelab' has no attribute '{name}'")


__all__ = [
    "__version__",
    "add_adapter",
    "create_head",
    "create_model",
    "list_adapters",
    "list_heads",
    "list_models",
    "load",
    "metrics",
]
