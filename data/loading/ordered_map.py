"""A map over threads that keeps the order, looks ahead a bounded distance, and ends cleanly when its consumer does."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int, stop: Event | None = None
) -> Iterator[Result]:
    """``function`` of each item, in order; an error is raised where its result would have been.

    Args:
        function: Called in several threads at once.
        items: Consumed no further than ``workers + ahead`` beyond the results that were taken.
        workers: Threads, at least 1.
        ahead: Results that may wait to be taken beside the one that each thread is making, so that none of them stands
            idle however small this is.
        stop: Set when no more results are wanted, so that a long ``function`` can end early.
    """
    remaining = iter(items)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="facelab") as pool:
        try:
            waiting.extend(pool.submit(function, item) for item in islice(remaining, workers + ahead))
            while waiting:
                result = waiting.popleft().result()  # the oldest, ready or not: that keeps the order
                # Before the result is handed over: the threads go on while the consumer works with it.
                waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
                yield result
        finally:
            if stop is not None:
                stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # what runs is waited for by the end of `with`
