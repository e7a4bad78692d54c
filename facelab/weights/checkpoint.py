"""Checkpoints: one folder each, written beside its final name, synced, renamed; read only when complete and unharmed.

A run's ``checkpoints`` folder holds ``step-<update>`` folders and ``index.json``, which names the last and the best
one; it is made anew from the folders where it is lost or damaged.
A folder holds ``model.safetensors`` and ``model.json`` (all that is needed to use the model), ``training.pt`` (what is
equal on all processes), ``process-<rank>.pt`` (what is not: random state, class rows with their range) and
``manifest.json`` with the hash of each and the score.
"""

import hashlib
import json
import math
import os
import pickle
import re
import shutil
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from facelab import distributed
from facelab.errors import CheckpointError, DataError
from facelab.outside.file import require_regular
from facelab.outside.json import read_json
from facelab.weights.torch_limits import check_limits

Tree = dict[str, Any]

MODEL, CARD, TRAINING, MANIFEST, INDEX = (
    "model.safetensors",
    "model.json",
    "training.pt",
    "manifest.json",
    "index.json",
)

STEP = re.compile(r"step-(\d{1,18})")
UNKNOWN_NAME = re.compile(r"GLOBAL ([\w.]{1,200})")  # in the reason that torch gives
UNREADABLE = (  # what torch's reader ends with where bytes are wrong
    *(OSError, RuntimeError, EOFError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError, struct.error, OverflowError, MemoryError),
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
        score = score if score is not None and math.isfinite(score) else None
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
        described = {"update": update, "score": score, "sha256": manifest}
        _write_bytes(partial / MANIFEST, json.dumps(described, indent=1).encode())
        _sync(partial)
        index = self.index()  # before there is one more
        if final.exists():  # the same update saved twice: the newer one wins
            shutil.rmtree(final)
        partial.rename(final)
        _sync(self.folder)
        self._record(index, final.name, score, keep)

    def _record(self, index: Tree, name: str, score: float | None, keep: bool) -> None:
        index["last"] = name
        if index["best"] == name:  # written over after going back to an earlier checkpoint
            index |= {"best": None, "best_score": None}
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
        """Names of the last, the best and the kept checkpoints; only reads.

        Where ``index.json`` is lost, damaged or names a last checkpoint that is not there, all checkpoints that are
        there are kept, the newest is the last one, and the best is that of the best score in their manifests.

        Raises:
            CheckpointError: If there are folders of checkpoints, and none of them is complete.
        """
        stored = _stored_index(self.folder / INDEX)
        if stored is not None and stored["last"] is not None and (self.folder / stored["last"] / MANIFEST).is_file():
            return stored
        names = self.names()
        broken = sorted(path for path in self.folder.glob("step-*") if path.is_dir())
        if broken and not names:
            raise CheckpointError(
                f"'{self.folder}' holds no complete checkpoint: '{broken[-1].name}' lacks {MANIFEST}. Bring it back, "
                "or move the folder away to start anew."
            )
        scores = {name: score for name in names if (score := _score_of(self.folder / name)) is not None}
        best = max(scores, key=lambda name: scores[name], default=None)
        return {
            "last": names[-1] if names else None,
            "best": best,
            "best_score": None if best is None else scores[best],
            "kept": names,
        }

    def find(self, which: str) -> Path:
        """The folder of ``last``, ``best`` or ``step-<update>``, where leading zeros may be left out.

        Raises:
            CheckpointError: If there is none.
        """
        name = self.index().get(which) if which in ("last", "best") else _full_name(which)
        if name and (self.folder / name / MANIFEST).is_file():
            return self.folder / name
        existing = ", ".join(self.names()) or "none"
        raise CheckpointError(f"'{self.folder}' has no checkpoint '{which}'. There are: {existing}.")

    def names(self) -> list[str]:
        """All complete checkpoints, oldest first."""
        found = (path.parent.name for path in self.folder.glob(f"step-*/{MANIFEST}"))
        return sorted(name for name in found if STEP.fullmatch(name))

    def require_unharmed(self, checkpoint: Path) -> None:
        """`verify` a checkpoint of this run before going on from it, each process a share of the files.

        Raises:
            CheckpointError: On every process, if it is damaged; the message names those that are not.
        """
        try:
            names = sorted(_manifest(checkpoint)["sha256"])[distributed.rank() :: distributed.world_size()]
            distributed.together(lambda: verify(checkpoint, names))
        except CheckpointError as error:
            offer = self.unharmed_instead(checkpoint, "go on from one by --resume")
            offer = offer or "There is no unharmed one; start anew in another folder."
            raise CheckpointError(f"{error} {offer}") from None

    def unharmed_instead(self, checkpoint: Path, option: str) -> str:
        """The sentence that offers the other unharmed checkpoints, such as with ``--resume``; empty without any."""
        good = [name for name in self.names() if name != checkpoint.name and _is_unharmed(self.folder / name)]
        return f"Unharmed: {', '.join(good)}; {option} {good[-1]}." if good else ""


def is_checkpoint_name(word: str) -> bool:
    """Whether a word may name a checkpoint of a run: ``last``, ``best`` or ``step-<update>``."""
    return word in ("last", "best") or STEP.fullmatch(word) is not None


def _full_name(which: str) -> str | None:
    """The folder's name of ``step-<update>``; None for anything else, so that no path leads out of the folder."""
    found = STEP.fullmatch(which)
    return None if found is None else f"step-{int(found[1]):08d}"


def _stored_index(path: Path) -> Tree | None:
    """What ``index.json`` says; None if it is missing or anything in it is not what we write."""
    try:
        stored = read_json(path, "an index of checkpoints")
        index = {key: stored.get(key) for key in ("last", "best", "best_score")} | {"kept": stored.get("kept", [])}
        names = [name for name in (index["last"], index["best"], *index["kept"]) if name is not None]
        score = index["best_score"]
        whole = all(STEP.fullmatch(name) for name in names) and (score is None or math.isfinite(score))
    except (DataError, TypeError, AttributeError):
        return None
    return index if whole and (index["best"] is None) == (score is None) else None


def _score_of(checkpoint: Path) -> float | None:
    try:
        return float(_manifest(checkpoint)["score"])
    except (CheckpointError, KeyError, TypeError, ValueError, OverflowError):
        return None  # written without a score, or by a version that kept scores in the index only


def _manifest(checkpoint: Path) -> Tree:
    """What ``manifest.json`` says, with the hashes by names of files under ``sha256``."""
    try:
        manifest: Tree = read_json(checkpoint / MANIFEST, "a list of hashes")
        if all(isinstance(digest, str) for digest in manifest["sha256"].values()):
            return manifest
    except (DataError, KeyError, TypeError, AttributeError):
        pass
    raise CheckpointError(f"'{checkpoint}' is not a complete checkpoint: {MANIFEST} is missing or damaged.")


def verify(checkpoint: Path, names: Iterable[str] | None = None) -> None:
    """Compare files of a checkpoint with its manifest.

    Args:
        checkpoint: Its folder.
        names: The files that will be read; None for all.

    Raises:
        CheckpointError: If a file is missing or was changed.
    """
    manifest = _manifest(checkpoint)["sha256"]
    for name in manifest if names is None else [name for name in names if name in manifest]:
        path = checkpoint / Path(name).name
        if not path.is_file():
            raise CheckpointError(f"the checkpoint '{checkpoint}' lacks '{name}'.")
        if _digest(path) != manifest[name]:
            raise CheckpointError(f"'{path}' is damaged: its hash is not the one in {MANIFEST}.")


def _is_unharmed(checkpoint: Path) -> bool:
    try:
        verify(checkpoint)
    except CheckpointError:
        return False
    return True


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


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: If it is missing or not a safetensors file.
    """
    try:
        require_regular(path)
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"'{path}' does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is not a safetensors file: {_first_line(error)}.") from None


def read_tree(path: Path, *, lazily: bool = False) -> Tree:
    """A tree of tensors and plain values; nothing else is ever unpickled, so a hostile file runs nothing.

    Args:
        path: A file of ``torch.save``.
        lazily: Read the numbers of a tensor only where they are used.

    Raises:
        CheckpointError: If the file is missing, damaged or holds anything else.
    """
    try:
        check_limits(path)
        tree = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
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
    """The state that this process wrote, with the number of ``processes`` that wrote the checkpoint.

    On another number of processes it is that of the process whose turn it would be.
    """
    paths = _process_files(checkpoint)
    tree: Tree = read_tree(paths[distributed.rank() % len(paths)], lazily=True)["local"]
    tree["processes"] = len(paths)
    return tree


def read_rows(checkpoint: Path, start: int, stop: int) -> dict[str, Tensor]:
    """Class rows ``[start, stop)`` of every row tensor, gathered from the files of however many processes wrote them.

    Only these rows are read.

    Raises:
        CheckpointError: If some of the rows are in none of the files.
    """
    pieces: dict[str, list[Tensor]] = {}
    reached = start
    for path in _process_files(checkpoint):
        tree = read_tree(path, lazily=True)
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


def _process_files(checkpoint: Path) -> list[Path]:
    paths = sorted(checkpoint.glob("process-*.pt"))
    if not paths:
        raise CheckpointError(f"the checkpoint '{checkpoint}' lacks the files of its processes.")
    return paths


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
