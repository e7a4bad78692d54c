"""Files that are there whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from facelab.errors import DataError


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file under a temporary name and rename it, replacing an older one.

    Raises:
        DataError: If the disk is full or the file cannot be written; an older file is left as it was.
    """
    refuse_folder(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path}: cannot be written ({error.strerror or error}).") from None
    return path


def refuse_folder(path: Path) -> None:
    """Refuse a folder where a file is to be written; to be asked before long work, too.

    Raises:
        DataError: If it is one.
    """
    if not path.name or path.is_dir():
        raise DataError(f"'{path}' is a folder; name a file in it.")
