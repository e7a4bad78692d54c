"""What a checkpoint keeps, and the files that hold it.

``model.safetensors`` and ``model.json`` (all that is needed to use the model), ``training.pt`` (what is equal on all
processes) and ``process-<rank>.pt`` (what is not: random state, class rows with their range).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from facelab import distributed
from facelab.errors import CheckpointError, DataError
from facelab.outside.json import read_json
from facelab.weights.synced_files import write_bytes, write_tree
from facelab.weights.tensor_files import Tree, read_safetensors, read_tree

MODEL, CARD, TRAINING = "model.safetensors", "model.json", "training.pt"

FIRST_OWNER = "classifier"
"""The name of most modes' only owner of class rows."""


@dataclass(frozen=True)
class ClassRows:
    """What one process holds of an owner's class rows.

    Attributes:
        start: First row.
        stop: One past the last row.
        tensors: Tensors of the owner and of its optimiser with a row for each of these, by name.
    """

    start: int
    stop: int
    tensors: Mapping[str, Tensor]


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
    rows = {
        owner: {"range": [held.start, held.stop], "tensors": dict(held.tensors)}
        for owner, held in snapshot.rows.items()
    }
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

    On another number of processes it is that of the process whose turn it would be.
    """
    paths = _process_files(checkpoint)
    tree: Tree = read_tree(paths[distributed.rank() % len(paths)], lazily=True)["local"]
    tree["processes"] = len(paths)
    return tree


def read_rows(checkpoint: Path, start: int, stop: int, owner: str = FIRST_OWNER) -> dict[str, Tensor]:
    """Class rows ``[start, stop)`` of an owner's tensors, gathered from the files of however many processes wrote them.

    Only these rows are read.

    Raises:
        CheckpointError: If some of the rows are in none of the files.
    """
    pieces: dict[str, list[Tensor]] = {}
    reached = start
    for path in _process_files(checkpoint):
        found = _rows_of(read_tree(path, lazily=True)).get(owner)
        if found is None:
            continue
        # Files come by rank, and so do their rows: each piece goes on where the last one ended, or a file is missing.
        low, high = max(found.start, reached), min(found.stop, stop)
        if low >= high or low != reached:
            continue
        for name, tensor in found.tensors.items():
            pieces.setdefault(name, []).append(tensor[low - found.start : high - found.start])
        reached = high
    if reached != stop:
        raise CheckpointError(f"the checkpoint '{checkpoint}' has no class rows {reached} to {stop} of its {owner}.")
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def count_rows(checkpoint: Path, owner: str) -> int:
    """How many rows an owner had on all processes together; 0 if there was none."""
    found = [_rows_of(read_tree(path, lazily=True)).get(owner) for path in _process_files(checkpoint)]
    return max((rows.stop for rows in found if rows is not None), default=0)


def _rows_of(tree: Tree) -> dict[str, ClassRows]:
    """The class rows in the file of a process, by owner."""
    if "row_range" in tree:  # up to 0.1 there was one owner, and its name was a part of its tensors'
        start, stop = tree["row_range"]
        tensors = {name.removeprefix(f"{FIRST_OWNER}."): tensor for name, tensor in tree["rows"].items()}
        return {FIRST_OWNER: ClassRows(start, stop, tensors)}
    return {
        owner: ClassRows(rows["range"][0], rows["range"][1], rows["tensors"]) for owner, rows in tree["rows"].items()
    }


def _process_files(checkpoint: Path) -> list[Path]:
    paths = sorted(checkpoint.glob("process-*.pt"))
    if not paths:
        raise CheckpointError(f"the checkpoint '{checkpoint}' lacks the files of its processes.")
    return paths
