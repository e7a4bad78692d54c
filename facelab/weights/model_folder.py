"""A model on its own: a checkpoint folder without anything that only training needs."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from facelab.errors import CheckpointError, DataError
from facelab.outside.json import parse_json
from facelab.weights.manifest import MANIFEST, replace_file
from facelab.weights.snapshot import CARD, MODEL
from facelab.weights.temporary import temporary_folder
from facelab.weights.tensor_files import read_safetensors
from facelab.weights.whole_file import write_whole

DESCRIPTION = "facelab model"  # where a safetensors file keeps the description of its model
OTHER_FORMATS = frozenset((".bin", ".ckpt", ".onnx", ".pkl", ".pt", ".pth"))  # a folder of such a name would mislead
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")  # of Hugging Face PEFT: settings and tensors


def write_model(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write weights and description so that `facelab.load` takes them; they are there whole or not at all.

    Args:
        folder: The new folder; or one file, if its name ends in ``.safetensors``.
        weights: Tensors by name.
        card: What is needed to build the network again and to feed it; JSON types.

    Raises:
        DataError: If there is something already, the name is that of another format, or it cannot be written.
    """
    if folder.exists():
        raise DataError(f"'{folder}' exists already; choose another name.")
    if folder.suffix.lower() in OTHER_FORMATS:
        raise DataError(f"'{folder}': a model is written as a folder or as one .safetensors file; choose such a name.")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    model = save(tensors, {DESCRIPTION: json.dumps(card)})
    if folder.suffix == ".safetensors":
        return write_whole(folder, model)
    files = {MODEL: model, CARD: json.dumps(card, indent=1).encode()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[MANIFEST] = json.dumps({"update": card.get("update", 0), "sha256": digests}, indent=1).encode()
    try:
        with temporary_folder(folder) as temporary:
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            # In one step, so that nobody ever sees half a model under this name.
            temporary.rename(folder)
    except OSError as error:
        raise DataError(f"'{folder}' cannot be written ({error.strerror}).") from None
    return folder


def rewrite_card(place: Path, card: Mapping[str, Any]) -> None:
    """Give a stored model another description; the old or the new one is there whole whenever it is stopped.

    Args:
        place: Folder of a checkpoint or a model, or a file of a model.
        card: The new description; JSON types.

    Raises:
        CheckpointError: If there is no model.
        DataError: If it cannot be written; the model is as it was then.
    """
    if place.is_file():
        _, weights = read_model_file(place)
        write_whole(place, save(weights, {DESCRIPTION: json.dumps(card)}))
        return
    try:
        replace_file(place, CARD, json.dumps(card, indent=1).encode())
    except OSError as error:
        raise DataError(f"'{place}' cannot be written ({error.strerror or error}).") from None


def is_model_file(path: Path) -> bool:
    """Whether a file is one that `write_model` wrote, by its description."""
    return DESCRIPTION in _metadata(path)


def _metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing if it is none."""
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        return file.metadata() or {}
    return {}


def read_model_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights in one file of `write_model`.

    Raises:
        CheckpointError: If it is none; the message says how else a file is used.
    """
    metadata = _metadata(path)
    if DESCRIPTION not in metadata:
        use = (
            "it holds adapters; load their base with them: facelab.load(BASE, adapter=FILE)"
            if "facelab" in metadata or path.name in PEFT_FILES
            else "make one of it: facelab import FILE --as SOURCE:NAME --out FOLDER"
        )
        raise CheckpointError(f"'{path}' is no model of facelab; {use}.")
    card = parse_json(
        metadata[DESCRIPTION], str(path), "the description of a model", not_finite=True, error=CheckpointError
    )
    if not isinstance(card, dict):
        raise CheckpointError(f"'{path}' does not describe a model.")
    return card, read_safetensors(path)
