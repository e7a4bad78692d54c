"""How often, how long and with which pauses something is asked for, on a clock of its own."""

import re
from collections.abc import Callable

import pytest

from facelab.data.shards import patience
from facelab.data.shards.patience import FailedError, Patience
from facelab.errors import ConfigError, DataError


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def failing(times: int, *reasons: str, wait: float = 0.0) -> Callable[[float], float]:
    """Fails so often, with reasons in turn, and then gives the deadline of its try."""
    tries = iter(range(times))

    def read(deadline: float) -> float:
        number = next(tries, None)
        if number is None:
            return deadline
        reason = reasons[number % len(reasons)]
        raise FailedError(reason, wait) if wait else FailedError(reason)

    return read


def test_each_try_has_the_whole_timeout_and_the_first_success_counts(clock: Clock) -> None:
    assert Patience(timeout=7.0).of(failing(0), "it", 0) == 1007.0
    assert clock.slept == []
    found = Patience(attempts=3, timeout=7.0).of(failing(2, "no"), "it", 0)
    assert len(clock.slept) == 2
    assert found == clock.now + 7.0


def test_pauses_double_from_half_to_the_whole_up_to_a_minute_and_differ_by_key(clock: Clock) -> None:
    pauses = []
    for key in range(30):
        clock.slept.clear()
        with pytest.raises(DataError, match="10 tries"):
            Patience(attempts=10, pause=0.5).of(failing(10, "no"), "it", key)
        pauses.append(list(clock.slept))
    for number, of_each in enumerate(zip(*pauses, strict=True)):
        whole = 0.5 * 2**number
        assert all(min(whole / 2, 60) <= one <= min(whole, 60) for one in of_each)
        if whole <= 60:
            assert len(set(of_each)) == 30
            assert max(of_each) - min(of_each) > whole / 3, "or all would come back at once"
    assert len(pauses[0]) == 9, "nobody waits behind the last try"
    assert max(pauses[0]) == 60.0


def test_a_longer_pause_that_is_asked_for_is_kept_up_to_a_minute(clock: Clock) -> None:
    for asked, slept in ((5.0, 5.0), (3600.0, 60.0)):
        Patience(attempts=2, pause=0.5).of(failing(1, "busy", wait=asked), "it", 0)
        assert clock.slept.pop() == slept
    Patience(attempts=2, pause=8.0).of(failing(1, "busy", wait=0.1), "it", 0)
    assert clock.slept.pop() >= 4.0, "a shorter one is not"


@pytest.mark.parametrize(
    ("attempts", "reasons", "said"),
    [
        (1, ["gone"], "it cannot be read: one try in 0.0 s ended with: gone."),
        (3, ["gone", "slow"], "it cannot be read: 3 tries in 1.5 s ended with: gone (2 times); slow."),
    ],
)
def test_who_gives_up_says_how_often_how_long_and_why(
    attempts: int, reasons: list[str], said: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "uniform", lambda *_: [1.0])
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        Patience(attempts=attempts, pause=0.5).of(failing(attempts, *reasons), "it", 0)


def test_what_may_not_be_repeated_ends_at_once(clock: Clock) -> None:
    def read(_: float) -> None:
        raise DataError("never")

    with pytest.raises(DataError, match="^never$"):
        Patience().of(read, "it", 0)
    assert clock.slept == []


@pytest.mark.parametrize(("name", "span"), [("attempts", "[1, 100]"), ("timeout", "(0, 3600]"), ("pause", "[0, 60]")])
def test_numbers_are_taken_up_to_their_bounds_and_refused_beyond(
    name: str, span: str, edges: Callable[[str, bool], tuple[list[float], list[float]]]
) -> None:
    allowed, refused = edges(span, name == "attempts")
    for value in allowed:
        Patience(**{name: value})
    for value in refused:
        with pytest.raises(ConfigError, match=rf"{name} is .*, but must lie in {re.escape(span)}"):
            Patience(**{name: value})
