"""Checkpoints: one folder each, written beside its final name, synced, renamed; read only when complete and unharmed.

A run's ``checkpoints`` folder holds ``step-<update>`` folders and ``index.json``, which names the last and the best
one.
A folder holds ``model.safetensors`` and ``model.json`` (all that is needed to use the model), ``training.pt`` (what is
equal on
all processes), ``process-<rank>.pt`` (what is not: random state, class rows with their range) and ``manifest.json``
with the hash of each.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from facelab import distributed
from facelab.errors import CheckpointError

Tree = dict[str, Any]

MODEL, CARD, TRAINING, MANIFEST, INDEX = (
    "model.safetensors",
    "model.json",
    "training.pt",
    "manifest.json",
    "index.json",
)

UNKNOWN_NAME = re.compile(r"GLOBAL ([\w.]+)")  # in the reason that torch gives
UNREADABLE = (  # what torch's reader ends with where bytes are wrong
    *(OSError, RuntimeError, EOFError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError, struct.error),
)


@dataclass(frozen=True)
class Snapshot:
    """Everything that a checkpoint keeps.

    Attributes:
        model: Weights to use for inference, by name.
        card: What is needed to build the network again and to feed it; JSON types.
        training: State that is equal on all processes: tensors, numbers, strings, lists, mappings.
        local: State of this process: random generators, buffers.
        rows: Tensors of which this process holds the class rows ``[start, stop)``.
        row_range: (start, stop).
    """

    model: Mapping[str, Tensor]
    card: Mapping[str, Any]
    training: Tree
    local: Tree
    rows: Mapping[str, Tensor]
    row_range: tuple[int, int]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they lie; made on the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, update: int, snapshot: Snapshot, *, score: float | None = None, keep: bool = False) -> Path:
        """Write one checkpoint; called on every process. The last and the best one stay, older ones are deleted.

        Args:
            update: Updates made so far; names the folder.
            snapshot: What to keep.
            score: Headline of an evaluation at this update, higher is better.
            keep: Never delete this one.

        Raises:
            CheckpointError: If it cannot be written (full disk, rights); earlier checkpoints are untouched then.
        """
        final = self.folder / f"step-{update:08d}"
        partial = self.folder / f".partial-{update:08d}"
        failure = self._attempt(lambda: self._prepare(partial))
        failure = failure or self._attempt(lambda: _write_local(partial, snapshot))
        failure = failure or self._attempt(lambda: self._publish(partial, final, update, snapshot, score, keep))
        if failure:
            if distributed.is_main():
                shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"cannot write the checkpoint '{final}': {failure}. Earlier checkpoints are unharmed."
            )
        return final

    def _attempt(self, action: Any) -> str:
        """Run ``action`` on every process; the reason of the first failure on any of them, or an empty string."""
        reason = ""
        try:
            action()
        except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a failed write as RuntimeError
            reason = (error.strerror if isinstance(error, OSError) else None) or _first_line(error)
        return next((found for found in distributed.gather_objects(reason) if found), "")

    def _prepare(self, partial: Path) -> None:
        if distributed.is_main():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def _publish(
        self, partial: Path, final: Path, update: int, snapshot: Snapshot, score: float | None, keep: bool
    ) -> None:
        if not distributed.is_main():
            return
        _write_bytes(partial / MODEL, save({name: value.contiguous() for name, value in snapshot.model.items()}))
        _write_bytes(partial / CARD, json.dumps(snapshot.card, indent=1).encode())
        _write_tree(partial / TRAINING, snapshot.training)
        manifest = {path.name: _digest(path) for path in sorted(partial.iterdir())}
        _write_bytes(partial / MANIFEST, json.dumps({"update": update, "sha256": manifest}, indent=1).encode())
        _sync(partial)
        if final.exists():  # the same update saved twice: the newer one wins
            shutil.rmtree(final)
        partial.rename(final)
        _sync(self.folder)
        self._record(final.name, score, keep)

    def _record(self, name: str, score: float | None, keep: bool) -> None:
        index = self.index()
        index["last"] = name
        if score is not None and (index["best"] is None or score > index["best_score"]):
            index |= {"best": name, "best_score": score}
        if keep:
            index["kept"] = sorted({*index["kept"], name})
        partial = self.folder / f".{INDEX}"
        _write_bytes(partial, json.dumps(index, indent=1).encode())
        partial.replace(self.folder / INDEX)
        _sync(self.folder)
        wanted = {index["last"], index["best"], *index["kept"]}
        for path in self.folder.iterdir():
            if path.name not in wanted and (path.name.startswith("step-") or path.name.startswith(".partial-")):
                shutil.rmtree(path, ignore_errors=True)

    def index(self) -> Tree:
        """Names of the last, the best and the kept checkpoints."""
        path = self.folder / INDEX
        empty: Tree = {"last": None, "best": None, "best_score": None, "kept": []}
        if not path.is_file():
            return empty
        try:
            stored: Tree = json.loads(path.read_text())
        except (OSError, ValueError):
            raise CheckpointError(
                f"'{path}' is damaged; name a checkpoint folder of '{self.folder}' instead."
            ) from None
        return empty | stored

    def find(self, which: str) -> Path:
        """The folder of ``last``, ``best`` or ``step-<update>``.

        Raises:
            CheckpointError: If there is none.
        """
        name = self.index().get(which) if which in ("last", "best") else which
        if name and (self.folder / name / MANIFEST).is_file():
            return self.folder / name
        existing = ", ".join(self.names()) or "none"
        raise CheckpointError(f"'{self.folder}' has no checkpoint '{which}'. There are: {existing}.")

    def names(self) -> list[str]:
        """All complete checkpoints, oldest first."""
        return sorted(path.parent.name for path in self.folder.glob(f"step-*/{MANIFEST}"))


def verify(checkpoint: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: If a file is missing or was changed.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"'{checkpoint}' is not a complete checkpoint: {MANIFEST} is missing or damaged."
        ) from None
    for name, digest in manifest.items():
        path = checkpoint / Path(name).name
        if not path.is_file():
            raise CheckpointError(f"the checkpoint '{checkpoint}' lacks '{name}'.")
        if _digest(path) != digest:
            raise CheckpointError(f"'{path}' is damaged: its hash is not the one in {MANIFEST}.")


def read_card(checkpoint: Path) -> Tree:
    """The description of the model in a checkpoint.

    Raises:
        CheckpointError: If it is missing or not JSON.
    """
    path = checkpoint / CARD
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError):
        raise CheckpointError(f"'{path}' is missing or damaged; is '{checkpoint}' a checkpoint of facelab?") from None
    if not isinstance(card, dict):
        raise CheckpointError(f"'{path}' does not describe a model.")
    return card


def read_model(checkpoint: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint."""
    return read_safetensors(checkpoint / MODEL)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: If it is missing or not a safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"'{path}' does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is not a safetensors file: {_first_line(error)}.") from None


def read_tree(path: Path) -> Tree:
    """A tree of tensors and plain values; nothing else is ever unpickled, so a hostile file runs nothing.

    Raises:
        CheckpointError: If the file is missing, damaged or holds anything else.
    """
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"'{path}' does not exist.") from None
    except IsADirectoryError:
        raise CheckpointError(f"'{path}' is a folder; name a file in it.") from None
    except pickle.UnpicklingError as error:
        asked = UNKNOWN_NAME.search(str(error))
        reason = f"it asks for '{asked[1]}'" if asked else "it is damaged"
        raise CheckpointError(
            f"'{path}' is refused: it may hold only tensors and plain values, but {reason}; nothing of it was run."
        ) from None
    except UNREADABLE as error:
        reason = "it is no file of torch.save" if isinstance(error, (EOFError, LookupError)) else _first_line(error)
        raise CheckpointError(f"'{path}' is not a readable checkpoint: {reason}.") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"'{path}' does not hold a mapping.")
    return tree


def read_local(checkpoint: Path) -> Tree:
    """The state that this process wrote; on another number of processes, that of the process whose turn it would be."""
    count = len(list(checkpoint.glob("process-*.pt")))
    if count == 0:
        raise CheckpointError(f"the checkpoint '{checkpoint}' lacks the files of its processes.")
    tree: Tree = read_tree(checkpoint / f"process-{distributed.rank() % count:05d}.pt")["local"]
    tree["processes"] = count
    return tree


def read_rows(checkpoint: Path, start: int, stop: int) -> dict[str, Tensor]:
    """Class rows ``[start, stop)`` of every row tensor, gathered from the files of however many processes wrote them.

    Raises:
        CheckpointError: If some of the rows are in none of the files.
    """
    pieces: dict[str, list[Tensor]] = {}
    reached = start
    for path in sorted(checkpoint.glob("process-*.pt")):
        tree = read_tree(path)
        first, last = tree["row_range"]
        low, high = max(first, reached), min(last, stop)
        if low >= high or low != reached:
            continue
        for name, tensor in tree["rows"].items():
            pieces.setdefault(name, []).append(tensor[low - first : high - first])
        reached = high
    if reached != stop:
        raise CheckpointError(f"the checkpoint '{checkpoint}' has no class rows {reached} to {stop}.")
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _write_local(partial: Path, snapshot: Snapshot) -> None:
    tree = {"local": snapshot.local, "rows": dict(snapshot.rows), "row_range": list(snapshot.row_range)}
    _write_tree(partial / f"process-{distributed.rank():05d}.pt", tree)


def _write_tree(path: Path, tree: Tree) -> None:
    with path.open("wb") as file:
        torch.save(tree, file)
        file.flush()
        os.fsync(file.fileno())


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
