"""Runs in memory: bounded, read once whoever asks, and only where that pays."""

import gc
import pickle
import threading
import time
import weakref

import pytest

from facelab.data.shards.run_cache import RunCache
from facelab.errors import DataError


def test_a_run_pays_from_its_third_image_on() -> None:
    cache = RunCache[bytes](100, len)
    assert [cache.is_wanted(5, history=3) for _ in range(4)] == [False, False, True, True]
    for other in (1, 2, 3):
        cache.is_wanted(other, history=3)
    assert not cache.is_wanted(5, history=3)  # forgotten by now


def test_the_runs_used_last_stay_within_the_bytes() -> None:
    cache, reads = RunCache[bytes](100, len), list[int]()

    def get(number: int, size: int = 40) -> bytes:
        return cache.get(number, lambda: reads.append(number) or bytes(size))

    for number in (1, 2, 1, 3, 1, 2):
        get(number)
    assert reads == [1, 2, 3, 2]
    get(9, size=500)  # larger than all: it stays until the next one comes
    get(9, size=500)
    assert reads == [1, 2, 3, 2, 9]
    get(1)
    get(9, size=500)
    assert reads == [1, 2, 3, 2, 9, 1, 9]
    assert pickle.loads(pickle.dumps(cache)).get(1, lambda: b"anew") == b"anew"
    reads.clear()
    for number in (20, 21, 20, 21, 22, 21, 22, 20):
        get(number, size=50)  # two fill it
    assert reads == [20, 21, 22, 20]


def test_threads_that_want_one_run_read_it_once_and_hear_of_one_failure() -> None:
    cache, reads, ends = RunCache[bytes](100, len), list[int](), list[str]()

    def read(fails: bool) -> bytes:
        reads.append(1)
        time.sleep(0.05)
        if fails:
            raise DataError("gone")
        return b"run"

    def want(fails: bool) -> None:
        try:
            ends.append(cache.get(7, lambda: read(fails)).decode())
        except DataError as error:
            ends.append(str(error))

    for fails, expected in ((True, "gone"), (False, "run")):
        threads = [threading.Thread(target=want, args=(fails,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (ends, len(reads)) == ([expected] * 5, 1)
        ends.clear()
        reads.clear()
    with pytest.raises(DataError, match="gone"):
        RunCache[bytes](1, len).get(1, lambda: read(True))


def test_what_a_failed_read_held_leaves_memory_with_the_error() -> None:
    class Held:
        """Something that can be referred to weakly."""

    cache, held = RunCache[bytes](100, len), list[weakref.ref[Held]]()

    def read() -> bytes:
        part = Held()
        held.append(weakref.ref(part))
        raise DataError("cut off")

    gc.disable()
    try:
        with pytest.raises(DataError):
            cache.get(1, read)
        assert held[0]() is None
    finally:
        gc.enable()
