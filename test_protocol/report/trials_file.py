"""Reading the trials of a report, which may come from anybody."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.outside.arrays import read_npz
from facelab.outside.file import read_regular

MAX_BYTES = 1 << 30  # 15.7 million pairs need 0.2 GB
MAX_ARRAYS = 32
KINDS = {"score": "f", "same": "b", "left": "i", "right": "i", "person": "i", "rank": "i"}
TOGETHER = {"same": ("score", "left", "right"), "rank": ("person",)}


def read_trials(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Arrays of one length by name: numbers or truth values, one for each trial.

    Args:
        path: An ``.npz`` file.
        sha256: The hash that its report states.

    Raises:
        DataError: If the file is missing, another one than the report's, or holds anything else.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path}: the trials of the report cannot be read ({error.strerror or error}).") from None
    # Before anything is unpacked.
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path}: is damaged or of another report: its hash is not the one that the report states.")
    try:
        arrays = read_npz(io.BytesIO(content), MAX_BYTES, MAX_ARRAYS)
    except (OSError, ValueError, MemoryError) as error:
        raise DataError(f"{path}: is not a file of trials ({error}).") from None
    for name, values in arrays.items():
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise DataError(f"{path}: '{name}' is {values.dtype} {values.shape}, but trials are lists of numbers.")
        if values.dtype.kind != KINDS.get(name, values.dtype.kind):
            raise DataError(f"{path}: '{name}' must not be {values.dtype}.")
        if not np.isfinite(values).all():
            raise DataError(f"{path}: '{name}' holds values that are not finite.")
    if len({len(values) for values in arrays.values()}) > 1:
        raise DataError(f"{path}: its arrays differ in length.")
    for name, others in TOGETHER.items():
        if name in arrays and (missing := [other for other in others if other not in arrays]):
            raise DataError(f"{path}: '{name}' is there without '{missing[0]}'.")
    return arrays
