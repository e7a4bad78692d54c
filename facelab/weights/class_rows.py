"""Class rows in checkpoints: each process has written a range of them, and any number of processes reads them again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facelab.errors import CheckpointError
from facelab.weights.manifest import read_manifest
from facelab.weights.tensor_files import Tree, read_tree

FIRST_OWNER = "classifier"
"""The name of most modes' only owner of class rows."""

OF_OPTIMIZER = "optimizer."
"""What begins so among class rows is state of their optimiser: its number, that of the parameter, and a name."""


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

    def tree(self) -> Tree:
        """As the file of the process keeps them."""
        return {"range": [self.start, self.stop], "tensors": dict(self.tensors)}


@dataclass(frozen=True)
class ProcessFile:
    """What one process wrote into a checkpoint.

    Attributes:
        local: State of the process: random generators, buffers.
        rows: Its class rows by the name of their owner.
    """

    local: Tree
    rows: Mapping[str, ClassRows]


@dataclass(frozen=True)
class StoredRows:
    """Consecutive rows of one tensor, as the files of one or several processes hold them; read where they are copied.

    Attributes:
        parts: The rows in their order, mapped into memory.
    """

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> torch.Size:
        """Of the rows together."""
        return torch.Size((sum(len(part) for part in self.parts), *self.parts[0].shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Of each."""
        return self.parts[0].dtype

    def empty(self, device: str | None = None) -> Tensor:
        """A tensor for them, without values."""
        return torch.empty(self.shape, dtype=self.dtype, device=device)

    def copy_into(self, target: Tensor) -> None:
        """Overwrite a tensor of their shape, wherever it lies, without another copy on the way."""
        with torch.no_grad():
            for place, part in zip(torch.split(target, [len(part) for part in self.parts]), self.parts, strict=True):
                place.copy_(part)

    def read(self) -> Tensor:
        """The rows in memory of their own."""
        whole = self.empty()
        self.copy_into(whole)
        return whole


def open_rows(checkpoint: Path, start: int, stop: int, owner: str = FIRST_OWNER) -> dict[str, StoredRows]:
    """Class rows ``[start, stop)`` of an owner's tensors, from the files of however many processes wrote them.

    Only these rows will be read, and only when they are copied.

    Raises:
        CheckpointError: If some of the rows are in none of the files, or a file is damaged.
    """
    pieces: dict[str, list[Tensor]] = {}
    kinds: dict[str, tuple[torch.dtype, torch.Size]] = {}
    reached = start
    for path in process_files(checkpoint):
        found = read_process(path).rows.get(owner)
        if found is None:
            continue
        if kinds and _kinds(found) != kinds:
            raise CheckpointError(f"'{path}' is damaged: it keeps other tensors of its {owner} than the files before.")
        kinds = _kinds(found)
        # Files come by rank, and so do their rows: each piece goes on where the last one ended, or a file is missing.
        low, high = max(found.start, reached), min(found.stop, stop)
        if low >= high or low != reached:
            continue
        for name, tensor in found.tensors.items():
            pieces.setdefault(name, []).append(tensor[low - found.start : high - found.start])
        reached = high
    if reached != stop:
        raise CheckpointError(f"the checkpoint '{checkpoint}' has no class rows {reached} to {stop} of its {owner}.")
    return {name: StoredRows(tuple(parts)) for name, parts in pieces.items()}


def read_rows(checkpoint: Path, start: int, stop: int, owner: str = FIRST_OWNER) -> dict[str, Tensor]:
    """What `open_rows` gives, in memory.

    Raises:
        CheckpointError: As of `open_rows`.
    """
    return {name: rows.read() for name, rows in open_rows(checkpoint, start, stop, owner).items()}


def count_rows(checkpoint: Path) -> dict[str, int]:
    """How many rows each owner had on all processes together, by its name."""
    counts: dict[str, int] = {}
    for path in process_files(checkpoint):
        for owner, rows in read_process(path).rows.items():
            counts[owner] = max(counts.get(owner, 0), rows.stop)
    return counts


def read_process(path: Path) -> ProcessFile:
    """The file that a process wrote; numbers of its tensors are read where they are used.

    Raises:
        CheckpointError: If it cannot be read, or does not hold what it says.
    """
    tree = read_tree(path, lazily=True)
    local, rows = tree.get("local"), tree.get("rows")
    if not isinstance(local, dict) or not isinstance(rows, dict):
        raise CheckpointError(f"'{path}' is not what a process writes into a checkpoint.")
    if "row_range" in tree:  # up to 0.1 there was one owner, and its name was a part of its tensors'
        tensors = {str(name).removeprefix(f"{FIRST_OWNER}."): tensor for name, tensor in rows.items()}
        rows = {FIRST_OWNER: {"range": tree["row_range"], "tensors": tensors}}
    return ProcessFile(local, {owner: _checked_rows(path, owner, held) for owner, held in rows.items()})


def _checked_rows(path: Path, owner: object, held: Any) -> ClassRows:
    match held:
        case {"range": [int(start), int(stop)], "tensors": dict(tensors)} if 0 <= start <= stop:
            if all(_has_rows(tensor, stop - start) for tensor in tensors.values()):
                return ClassRows(start, stop, tensors)
    raise CheckpointError(f"'{path}' is damaged: it does not hold the class rows of its {owner} that it speaks of.")


def _has_rows(tensor: object, count: int) -> bool:
    """Whether it is a dense tensor with a row for each of some, and numbers of its own for each."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and tensor.ndim > 0
        and len(tensor) == count
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _kinds(rows: ClassRows) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape[1:]) for name, tensor in rows.tensors.items()}


def process_files(checkpoint: Path) -> list[Path]:
    """The files of the processes that a checkpoint is of, by rank.

    Raises:
        CheckpointError: If there are none.
    """
    paths = sorted(checkpoint.glob("process-*.pt"))
    if any("-of-" in path.name for path in paths):
        # Where resharding was interrupted, those of two numbers of processes lie here; the manifest names one of them.
        listed = read_manifest(checkpoint)["sha256"]
        paths = [path for path in paths if path.name in listed]
    if not paths:
        raise CheckpointError(f"the checkpoint '{checkpoint}' lacks the files of its processes.")
    return paths
