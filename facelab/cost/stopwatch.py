"""How long something takes, measured within a budget of time."""

import statistics
import time
from collections.abc import Callable

MOST_RUNS = 50


def median_seconds(run: Callable[[], object], budget: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median duration of ``run`` in seconds.

    The first run warms up and does not count, unless it alone uses up the budget. Others follow until the budget is
    used up, 50 at most.

    Args:
        run: What to time.
        budget: Seconds for all runs together; the last one may go beyond.
        clock: Gives the time in seconds.
    """
    start = clock()
    times: list[float] = []
    while len(times) <= MOST_RUNS and (not times or clock() - start < budget):
        before = clock()
        run()
        times.append(clock() - before)
    return statistics.median(times[1:] or times)
