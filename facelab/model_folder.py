"""A model on its own: a checkpoint folder without anything that only training needs."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from facelab.checkpoint import CARD, MANIFEST, MODEL
from facelab.errors import DataError


def write_model(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write weights and description as a folder that `facelab.load` takes; it is there whole or not at all.

    Args:
        folder: The new folder.
        weights: Tensors by name.
        card: What is needed to build the network again and to feed it; JSON types.

    Raises:
        DataError: If there is something already, or the folder cannot be written.
    """
    if folder.exists():
        raise DataError(f"'{folder}' exists already; choose another folder.")
    files = {
        MODEL: save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}),
        CARD: json.dumps(card, indent=1).encode(),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[MANIFEST] = json.dumps({"update": card.get("update", 0), "sha256": digests}, indent=1).encode()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DataError(f"'{folder}' cannot be written ({error.strerror}).") from None
    return folder
