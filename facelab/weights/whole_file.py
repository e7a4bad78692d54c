"""Files that are there whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from facelab.errors import DataError
from facelab.weights.temporary import temporary_name

Kind = Literal["file", "folder", "new"]

LONGEST = 300
"""Letters of a path that a message shows."""


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file under a temporary name and rename it, replacing an older one.

    Raises:
        DataError: If the disk is full or the file cannot be written; an older file is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _refuse_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{_shown(path)}: cannot be written ({error.strerror or error}).") from None
    return path


def require_writable(target: Path, kind: Kind = "file") -> None:
    """Refuse a place where nothing can be written: to be asked before long work whose result shall lie there.

    Args:
        target: What will be written; neither it nor the folders above it need be there yet.
        kind: A file, which may replace one; a folder, which may be there; or something new, which may not.

    Raises:
        DataError: If nothing can be made there: it is a folder where a file shall be or the other way round, is there
            already and shall be new, a part of its path is a file, its name is too long, or the disk is read-only, full
            or somebody else's.
    """
    try:
        if kind == "file":
            _refuse_folder(target)
        elif kind == "folder" and target.exists() and not target.is_dir():
            raise DataError(f"'{target}' is a file; name a folder.")
        elif kind == "new":
            refuse_existing(target)
        there = target if kind == "folder" else target.parent
        while not os.path.lexists(there):  # the current folder and the root end this
            there = there.parent
        # Tried, since rights alone say nothing of disks that are mounted read-only; under the name that it will have
        # while it is written, which is longer than its own.
        probe = temporary_name(there / (target.name or "it"))
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"{_shown(target)}: cannot be written ({error.strerror or error}).") from None


def refuse_existing(target: Path) -> None:
    """Never write over anything.

    Raises:
        DataError: If ``target`` exists.
    """
    if target.exists():
        raise DataError(f"{target}: exists already; remove it or choose another name.")


def _refuse_folder(path: Path) -> None:
    if not path.name or path.is_dir():
        raise DataError(f"'{path}' is a folder; name a file in it.")


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
