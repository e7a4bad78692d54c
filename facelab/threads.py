"""How many threads an option ``workers`` means, wherever there is one."""

import os

from facelab.errors import in_range

MOST_WORKERS = 1024


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
