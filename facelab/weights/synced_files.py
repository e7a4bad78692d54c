"""Files that are on the disk, not only on their way to it, when writing them returns."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and wait for the disk."""
    _write(path, lambda file: file.write(content))


def write_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write tensors and plain values by ``torch.save`` and wait for the disk."""
    _write(path, lambda file: torch.save(tree, file))


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a file's own sync does not cover a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    with path.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
