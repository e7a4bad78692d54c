"""Class rows in checkpoints: each process has written a range of them, and any number of processes reads them again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
        CheckpointError: If some of the rows are in none of the files.
    """
    pieces: dict[str, list[Tensor]] = {}
    reached = start
    for path in process_files(checkpoint):
        found = rows_of(read_tree(path, lazily=True)).get(owner)
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
        for owner, rows in rows_of(read_tree(path, lazily=True)).items():
            counts[owner] = max(counts.get(owner, 0), rows.stop)
    return counts


def rows_of(tree: Tree) -> dict[str, ClassRows]:
    """The class rows in the file of a process, by owner."""
    if "row_range" in tree:  # up to 0.1 there was one owner, and its name was a part of its tensors'
        start, stop = tree["row_range"]
        tensors = {name.removeprefix(f"{FIRST_OWNER}."): tensor for name, tensor in tree["rows"].items()}
        return {FIRST_OWNER: ClassRows(start, stop, tensors)}
    return {
        owner: ClassRows(rows["range"][0], rows["range"][1], rows["tensors"]) for owner, rows in tree["rows"].items()
    }


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
