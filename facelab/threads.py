"""How many threads or processes an option ``workers`` means, wherever there is one."""

import os
from typing import Literal

from facelab.errors import in_range

MOST_WORKERS = 1024
MOST_CHOSEN = 16
"""Of ``auto``: so many cores decode more images than a GPU trains on."""

Workers = int | Literal["auto"]
Reader = Literal["auto", "threads", "processes"]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(workers: int) -> int:
    """The threads that ``workers`` means: so many, or for 0 one for each core that this process may use.

    Processes that were started together on one machine share its cores.

    Raises:
        ConfigError: If it is negative or above 1024.
    """
    in_range("workers", workers, 0, MOST_WORKERS)
    return workers or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def worker_count(workers: Workers) -> int:
    """Threads or processes that read for training.

    ``auto`` leaves one of this process's cores to the training loop and takes the others, from 1 to 16.

    Raises:
        ConfigError: As `thread_count`.
    """
    return min(max(1, thread_count(0) - 1), MOST_CHOSEN) if workers == "auto" else thread_count(workers)
