"""Variables of MATLAB files: cells of texts and columns of numbers."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.test_protocol.metrics import Integers

DEEPEST = 8


def read_variable(path: Path, name: str) -> NDArray[Any]:
    """One variable of a ``.mat`` file (version 7.2 and older).

    Raises:
        DataError: If the file is missing, is not a MATLAB file, or has no such variable.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    damage = (MatReadError, ValueError, TypeError, OSError, NotImplementedError, MemoryError, KeyError, IndexError)
    try:
        value = loadmat(path, variable_names=[name], appendmat=False).get(name)
    except damage as error:
        raise DataError(f"{path}: is not a readable MATLAB file ({type(error).__name__}: {error}).") from None
    if not isinstance(value, np.ndarray):
        raise DataError(f"{path}: has no variable '{name}'.")
    return value


def cell_text(cell: object, where: str) -> str:
    """The text inside nested 1x1 cells and structs.

    Raises:
        DataError: If there is something else.
    """
    for _ in range(DEEPEST):
        if isinstance(cell, str) and cell:
            return cell
        if isinstance(cell, np.void) and cell.dtype.names:
            cell = cell[0]
        elif isinstance(cell, np.ndarray) and cell.size == 1:
            cell = cell.ravel()[0]
        else:
            break
    raise DataError(f"{where} holds something else than image names.")


def texts(path: Path, name: str) -> list[str]:
    """The texts of a cell, row by row.

    Raises:
        DataError: If the file cannot be read, or the variable is no cell of texts.
    """
    return [cell_text(cell, f"{path}: {name}") for cell in read_variable(path, name).ravel()]


def whole_numbers(path: Path, name: str) -> Integers:
    """The whole numbers of a column, (N,).

    Raises:
        DataError: If the file cannot be read, or the variable holds anything else.
    """
    values = read_variable(path, name).ravel()
    if values.dtype.kind not in "iuf" or (values != np.floor(values)).any():
        raise DataError(f"{path}: {name} is not a column of whole numbers.")
    return values.astype(np.int64)
