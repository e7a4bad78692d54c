"""Another process of this Python that imports what this one would."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def module_command(module: str, *arguments: str) -> Sequence[str]:
    """The command that runs a module of facelab; to be started with `module_environment`."""
    # -P keeps the folder where the user stands out of the path of imports.
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """This process's environment, its path of imports, and one thread for each library that would take more."""
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)  # "" is where the user stands
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
