"""Medians within a budget, by a clock that the test turns."""

from collections.abc import Iterator

import pytest

from facelab.cost.stopwatch import MOST_RUNS, median_seconds


class Clock:
    def __init__(self, durations: Iterator[float]) -> None:
        self.now, self.runs, self.durations = 0.0, 0, durations

    def __call__(self) -> float:
        return self.now

    def run(self) -> None:
        self.now += next(self.durations)
        self.runs += 1


@pytest.mark.parametrize(
    ("durations", "median", "runs"),
    [
        ([4.0, 1.0, 3.0, 1.5, 1.0], 1.5, 4),  # the first warms up; the fourth goes beyond the budget and counts
        ([9.0, 9.0, 2.0], 9.0, 2),
        ([30.0, 1.0], 30.0, 1),
    ],
)
def test_median_within_the_budget(durations: list[float], median: float, runs: int) -> None:
    clock = Clock(iter(durations))
    assert median_seconds(clock.run, 9.5 if runs < 4 else 9.0, clock) == median
    assert clock.runs == runs


def test_quick_things_do_not_run_for_ever() -> None:
    clock = Clock(iter([1e-6] * 1000))
    assert median_seconds(clock.run, 1.0, clock) == pytest.approx(1e-6)
    assert clock.runs == MOST_RUNS + 1
