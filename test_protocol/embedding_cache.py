"""Embeddings kept on disk, so that a second evaluation of the same model costs nothing."""

import os
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import Embeddings


def load_embeddings(path: Path) -> Embeddings:
    """Read what `save_embeddings` wrote.

    Raises:
        DataError: If the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Embeddings(arrays["values"], arrays.get("flipped"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: the cached embeddings are damaged ({error}); delete the file.") from None


def save_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write embeddings under a temporary name and rename the file, so that none is ever half written.

    Raises:
        DataError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    mirrored = {} if embeddings.flipped is None else {"flipped": embeddings.flipped}
    try:
        with temporary.open("wb") as file:
            np.savez(file, values=embeddings.values, allow_pickle=False, **mirrored)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path}: the embeddings cannot be cached ({error.strerror}).") from None
