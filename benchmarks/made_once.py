"""Files that several processes need and one of them makes."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def stored_once(path: Path, make: Callable[[], Array]) -> Array:
    """The array in a file; where there is none it is made, by one of several processes, and the others wait for it."""

    def store(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, make())

    array: Array = np.load(made_once(path, store), mmap_mode="r")
    return array


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """A file or folder; where there is none ``make`` writes it under another name, and only then it gets its own."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                partial = path.with_suffix(".unfinished")
                make(partial)
                partial.replace(path)
    return path
