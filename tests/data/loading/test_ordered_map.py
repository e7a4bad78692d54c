"""A map over threads: its order, how far it looks ahead, errors at their place, and an end at any time."""

import threading
from collections.abc import Iterator
from threading import Event

import pytest

from facelab.data.loading.ordered_map import ordered_map


def counted(count: int, taken: list[int]) -> Iterator[int]:
    for number in range(count):
        taken.append(number)
        yield number


def test_the_order_is_that_of_the_items_whoever_is_ready_first() -> None:
    second_done = Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert second_done.wait(30)
        if number == 1:
            second_done.set()
        return number

    assert list(ordered_map(slow_first, range(20), workers=2, ahead=1)) == list(range(20))


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (1, 3), (3, 0), (2, 4)])
def test_no_more_is_asked_for_than_may_wait(workers: int, ahead: int) -> None:
    taken: list[int] = []
    results = ordered_map(lambda number: number, counted(20, taken), workers=workers, ahead=ahead)
    assert taken == []
    for number in range(20):
        assert next(results) == number
        # One more than when it began: the next is being made while this one is worked with.
        assert len(taken) == min(number + 1 + workers + ahead, 20)


def test_an_error_comes_where_its_result_would_have_been() -> None:
    stop = Event()

    def fails_at_three(number: int) -> int:
        if number == 3:
            raise KeyError(number)
        return number

    results = ordered_map(fails_at_three, range(100), workers=2, ahead=5, stop=stop)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert not stop.is_set()
    with pytest.raises(KeyError, match="3"):
        next(results)
    assert stop.is_set()
    assert next(results, None) is None


def test_who_leaves_early_stops_what_runs_and_what_waits() -> None:
    stop, done = Event(), []

    def waits(number: int) -> int:
        if number:
            assert stop.wait(30)
        done.append(number)
        return number

    before = threading.active_count()
    results = ordered_map(waits, range(100), workers=2, ahead=10, stop=stop)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert stop.is_set()
    assert len(done) <= 3, "the ten that waited are not begun"
    assert threading.active_count() == before
