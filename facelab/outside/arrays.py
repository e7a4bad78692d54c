"""NumPy's files that may come from anybody: sizes are compared with the bytes that are there before memory is taken."""

import ast
import math
import operator
import zlib
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from facelab.outside.file import opened

MAX_BYTES = 1 << 32
MAX_ARRAYS = 1000
MAX_HEADER = 10_000
MAX_REASON = 200  # characters; zipfile shows names, which may be of thousands


def read_npz(file: IO[bytes], limit: int = MAX_BYTES, most: int = MAX_ARRAYS) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name.

    Args:
        file: The file, open for reading.
        limit: Most bytes of all arrays.
        most: Most arrays.

    Raises:
        ValueError: If it is no such file, is damaged, unpacks to more, or holds objects.
        OSError: If it cannot be read.
    """
    try:
        with ZipFile(file) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if len(entries) > most:
                raise ValueError(f"it holds {len(entries):,} arrays, more than the {most:,} that are allowed")
            if size > limit:
                raise ValueError(f"it unpacks to {size:,} bytes, more than the {limit:,} that are allowed")
            return {entry.filename.removesuffix(".npy"): parse_npy(archive.read(entry)) for entry in entries}
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error, KeyError) as error:
        raise ValueError(str(error)[:MAX_REASON] or "it is damaged") from None


def parse_npy(content: bytes) -> NDArray[Any]:
    """The array of an ``.npy`` file.

    Raises:
        ValueError: If it is no such file, holds objects, or its size is not what its header says.
    """
    shape, fortran, dtype, start = _header(content)
    _check(shape, dtype, len(content) - start)
    # A copy of its own: what frombuffer() gives cannot be written to.
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C").copy()


def mapped_npy(path: Path) -> NDArray[Any]:
    """The array of an ``.npy`` file as a read-only memory map.

    Raises:
        ValueError: As `parse_npy`.
        OSError: If it cannot be read, or is no regular file.
    """
    with opened(path) as file:
        shape, fortran, dtype, start = _header(file.read(12 + MAX_HEADER))
        _check(shape, dtype, file.seek(0, 2) - start)
        return np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")


def _check(shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> None:
    if dtype.hasobject or dtype.itemsize == 0 or dtype.fields is not None:
        raise ValueError(f"it holds {dtype}, not numbers or text")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{size:,} bytes do not make {dtype} {shape}")


def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and type of an array, and where its values begin."""
    if content[:6] != np.lib.format.MAGIC_PREFIX or content[6:7] not in (b"\1", b"\2", b"\3"):
        raise ValueError("it is no array of NumPy")
    # Version 1 has two bytes for the length of the header, later ones have four.
    start = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length:,} bytes")
    try:
        given = ast.literal_eval(content[start : start + length].decode("utf-8").strip())
        shape, dtype = tuple(map(operator.index, given["shape"])), np.dtype(str(given["descr"]))
        return shape, given["fortran_order"] is True, dtype, start + length
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"it has no header of an array ({type(error).__name__})") from None
