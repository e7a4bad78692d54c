"""facelab: train, adapt and benchmark face recognition."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ != "facelab":
    raise ImportError(f"this package is 'facelab'; import it by that name, not as '{__name__}'")

if TYPE_CHECKING:
    from facelab.face_model import FaceModel

__version__ = "0.1.0"

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "head").is_dir():
    __path__.append(str(_ROOT))  # a checkout: facelab.head is ../head


def load(source: str | Path, **options: Any) -> "FaceModel":
    """Load a trained model from a run folder, a checkpoint folder or an exported file.

    See `facelab.face_model.load_model` for the options and the errors.
    """
    from facelab.face_model import load_model

    return load_model(source, **options)


__all__ = ["__version__", "load"]
