"""facelab: train, adapt and benchmark face recognition."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ != "facelab":
    raise ImportError(f"this package is 'facelab'; import it by that name, not as '{__name__}'")

from facelab.create import add_adapter, create_head, create_model, list_adapters, list_heads, list_models
from facelab.version import __version__

if TYPE_CHECKING:
    from facelab import metrics
    from facelab.model.face_model import FaceModel

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "head").is_dir():
    __path__.append(str(_ROOT))  # a checkout: facelab.head is ../head


def load(source: str | Path, **options: Any) -> "FaceModel":
    """Load a trained model, ready to embed images, in evaluation mode.

    Args:
        source: Folder of a run, of one of its checkpoints or of a model, or a file of a model (`FaceModel.save`).
        options: ``checkpoint``, ``adapter``, ``device`` and ``name`` of `facelab.model.face_model.load_model`.

    Raises:
        CheckpointError: If there is no complete, unharmed checkpoint, or its adapters belong to another model.
        ConfigError: If the model needs something that is not registered here.
    """
    from facelab.model.face_model import load_model

    return load_model(source, **options)


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
