"""The manifest of a checkpoint: hashes of its files and its score; written last, so that only whole ones have it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from facelab.errors import CheckpointError, DataError
from facelab.outside.json import read_json
from facelab.weights.synced_files import sync_folder, write_bytes

MANIFEST = "manifest.json"
DIGESTS, REPLACING = "sha256", "replacing"


def write_manifest(checkpoint: Path, update: int, score: float | None) -> None:
    """List the files of a checkpoint, with the updates made so far and its score."""
    digests = {path.name: _digest(path) for path in sorted(checkpoint.iterdir())}
    described = {"update": update, "score": score, DIGESTS: digests}
    write_bytes(checkpoint / MANIFEST, json.dumps(described, indent=1).encode())


def exchange_files(checkpoint: Path, former: Iterable[str], new: Iterable[str]) -> None:
    """List ``new`` files in place of ``former`` ones, in one step; both lie in the checkpoint.

    Raises:
        CheckpointError: If the manifest is missing or not what we write.
        OSError: If it cannot be written; it is as it was then.
    """
    manifest = read_manifest(checkpoint)
    stay = {name: digest for name, digest in manifest[DIGESTS].items() if name not in former}
    _exchange(checkpoint, {**manifest, DIGESTS: stay | {name: _digest(checkpoint / name) for name in new}})


def replace_file(checkpoint: Path, name: str, content: bytes) -> None:
    """Give a file of a checkpoint another content; whenever it is stopped, the checkpoint is whole and unharmed.

    Raises:
        CheckpointError: If the manifest is missing or not what we write.
        OSError: If it cannot be written; the file is as it was then.
    """
    manifest = read_manifest(checkpoint)
    digest = hashlib.sha256(content).hexdigest()
    partial = checkpoint / f".{name}"
    write_bytes(partial, content)
    # Two names cannot change in one step: between them the file may be the old one or the new one.
    _exchange(checkpoint, {**manifest, REPLACING: {name: digest}})
    partial.replace(checkpoint / name)
    sync_folder(checkpoint)
    manifest.pop(REPLACING, None)
    _exchange(checkpoint, {**manifest, DIGESTS: {**manifest[DIGESTS], name: digest}})


def _exchange(checkpoint: Path, described: Mapping[str, Any]) -> None:
    partial = checkpoint / f".{MANIFEST}"
    write_bytes(partial, json.dumps(described, indent=1).encode())
    partial.replace(checkpoint / MANIFEST)
    sync_folder(checkpoint)


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """What ``manifest.json`` says, with the hashes by names of files under ``sha256``.

    Raises:
        CheckpointError: If it is missing or not what we write.
    """
    try:
        manifest: dict[str, Any] = read_json(checkpoint / MANIFEST, "a list of hashes")
        digests = (*manifest[DIGESTS].values(), *manifest.get(REPLACING, {}).values())
        if all(isinstance(digest, str) for digest in digests):
            return manifest
    except (DataError, KeyError, TypeError, AttributeError):
        pass
    raise CheckpointError(f"'{checkpoint}' is not a complete checkpoint: {MANIFEST} is missing or damaged.")


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    return (checkpoint / MANIFEST).is_file()


def score_of(checkpoint: Path) -> float | None:
    """The score that a checkpoint was saved with; None where it has none."""
    try:
        return float(read_manifest(checkpoint)["score"])
    except (CheckpointError, KeyError, TypeError, ValueError, OverflowError):
        return None  # written without a score, or by a version that kept scores in the index only


def verify(checkpoint: Path, names: Iterable[str] | None = None) -> None:
    """Compare files of a checkpoint with its manifest.

    Args:
        checkpoint: Its folder.
        names: The files that will be read; None for all.

    Raises:
        CheckpointError: If a file is missing or was changed.
    """
    described = read_manifest(checkpoint)
    manifest, replacing = described[DIGESTS], described.get(REPLACING, {})
    for name in manifest if names is None else [name for name in names if name in manifest]:
        # The name alone: a manifest from outside could lead out of the folder.
        path = checkpoint / Path(name).name
        if not path.is_file():
            raise CheckpointError(f"the checkpoint '{checkpoint}' lacks '{name}'.")
        if _digest(path) not in (manifest[name], replacing.get(name)):
            raise CheckpointError(f"'{path}' is damaged: its hash is not the one in {MANIFEST}.")


def is_unharmed(checkpoint: Path) -> bool:
    """Whether every file is the one that was written."""
    try:
        verify(checkpoint)
    except CheckpointError:
        return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
