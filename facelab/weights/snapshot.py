"""What a checkpoint keeps, and the files that hold it.

``model.safetensors`` and ``model.json`` (all that is needed to use the model), ``training.pt`` (what is equal on all
processes) and ``process-<rank>.pt`` (what is not: random state, class rows with their range).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from facelab import distributed
from facelab.errors import CheckpointError, DataError
from facelab.outside.json import read_json
from facelab.weights.class_rows import ClassRows, process_files, read_process, read_rows
from facelab.weights.synced_files import write_bytes, write_tree
from facelab.weights.tensor_files import Tree, read_safetensors

__all__ = ["ClassRows", "Snapshot", "read_card", "read_local", "read_model", "read_rows", "write_local", "write_shared"]

MODEL, CARD, TRAINING = "model.safetensors", "model.json", "training.pt"


@dataclass(frozen=True)
class Snapshot:
    """Everything that a checkpoint keeps.

    Attributes:
        model: Weights to use for inference, by name.
        card: What is needed to build the network again and to feed it; JSON types.
        training: State that is equal on all processes: tensors, numbers, strings, lists, mappings.
        local: State of this process: random generators, buffers.
        rows: This process's class rows by the name of their owner; empty where nothing has class rows.
    """

    model: Mapping[str, Tensor]
    card: Mapping[str, Any]
    training: Tree
    local: Tree
    rows: Mapping[str, ClassRows]


def write_shared(folder: Path, snapshot: Snapshot) -> None:
    """Write what is equal on all processes; one of them calls this."""
    write_bytes(folder / MODEL, save({name: value.contiguous() for name, value in snapshot.model.items()}))
    write_bytes(folder / CARD, json.dumps(snapshot.card, indent=1).encode())
    write_tree(folder / TRAINING, snapshot.training)


def write_local(folder: Path, snapshot: Snapshot) -> None:
    """Write what is this process's own; each of them calls this."""
    rows = {owner: held.tree() for owner, held in snapshot.rows.items()}
    write_tree(folder / f"process-{distributed.rank():05d}.pt", {"local": snapshot.local, "rows": rows})


def read_card(checkpoint: Path) -> Tree:
    """The description of the model in a checkpoint.

    Raises:
        CheckpointError: If it is missing or not JSON.
    """
    path = checkpoint / CARD
    try:
        card = read_json(path, "the description of a model", not_finite=True)  # open ranges of scores
    except DataError:
        raise CheckpointError(f"'{path}' is missing or damaged; is '{checkpoint}' a checkpoint of facelab?") from None
    if not isinstance(card, dict):
        raise CheckpointError(f"'{path}' does not describe a model.")
    return card


def read_model(checkpoint: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint."""
    return read_safetensors(checkpoint / MODEL)


def read_local(checkpoint: Path) -> Tree:
    """The state that this process wrote, with the number of ``processes`` that wrote the checkpoint.

    On another number of processes it is that of the process whose turn it would be, without its random state ``rng``:
    a process that joins must not repeat the dropout of another one.
    """
    paths = process_files(checkpoint)
    rank = distributed.rank()
    tree = read_process(paths[rank % len(paths)]).local
    if rank >= len(paths):
        tree.pop("rng", None)
    tree["processes"] = len(paths)
    return tree
