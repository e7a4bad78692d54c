"""Files from strangers that may end the program that opens them are opened in a process of its own first."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MEMORY, TIMES_FILE = 6 << 30, 8
"""Bytes of address space of a trial: a constant part, of which libraries take most, and so many times the file."""


def run_trial(
    module: str, content: bytes, arguments: Sequence[str] = (), *, seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a module of facelab on the content of a file, which it reads from its input.

    Args:
        module: Its dotted name.
        content: The file.
        arguments: More that it is told.
        seconds: How long it may take.

    Raises:
        subprocess.TimeoutExpired: If it takes longer; it is ended then.
    """
    # It must import what this process would, installed or not: -P keeps the folder where the user stands out of its
    # path.
    path = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-P", "-m", module, *arguments]
    return subprocess.run(command, input=content, capture_output=True, timeout=seconds, check=False, env=environment)


def limit_memory(size: int) -> None:
    """Take no more address space than a file of so many bytes may need; where the system knows such limits."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + TIMES_FILE * size, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
