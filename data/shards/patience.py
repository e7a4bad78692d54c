"""How long and how often what lies elsewhere is asked for, before one sentence says that it cannot be had."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from facelab.data.loading.keyed_random import uniform
from facelab.errors import DataError, in_range

T = TypeVar("T")

LONGEST_PAUSE = 60.0


class FailedError(Exception):
    """A try that failed and may be repeated.

    Attributes:
        wait: Seconds that the other side asks to wait, 0 if it does not.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """Tries and their times.

    Attributes:
        attempts: How often a read is tried, 1..100.
        timeout: Seconds that one try may take, above 0.
        pause: Seconds before the second try; each further pause is twice as long, up to a minute.

    Raises:
        ConfigError: If a number is out of range.
    """

    attempts: int = 5
    timeout: float = 30.0
    pause: float = 0.5

    def __post_init__(self) -> None:
        in_range("attempts", self.attempts, 1, 100)
        in_range("timeout", self.timeout, 0, 3600, low_open=True)
        in_range("pause", self.pause, 0, LONGEST_PAUSE)

    def of(self, read: Callable[[float], T], what: str, key: int) -> T:
        """What ``read`` gives, repeated where it fails.

        Args:
            read: Called with the time (`time.monotonic`) at which it must have ended; raises `FailedError` where
                another try may help.
            what: Names file and place, for the message.
            key: Chooses the random part of the pauses, so that not all readers come back at the same moment.

        Raises:
            DataError: If no try succeeds; it says how many there were, how long they took and how they ended.
        """
        began = time.monotonic()
        reasons: Counter[str] = Counter()
        for attempt in range(self.attempts):
            try:
                return read(time.monotonic() + self.timeout)
            except FailedError as error:
                reasons[str(error)] += 1
                if attempt + 1 < self.attempts:
                    time.sleep(self._pause(attempt, key, error.wait))
        tries = "one try" if self.attempts == 1 else f"{self.attempts} tries"
        ends = "; ".join(f"{why} ({count} times)" if count > 1 else why for why, count in reasons.items())
        raise DataError(f"{what} cannot be read: {tries} in {time.monotonic() - began:.1f} s ended with: {ends}.")

    def _pause(self, attempt: int, key: int, asked: float) -> float:
        # Between half and the whole of it.
        spread = 0.5 + 0.5 * float(uniform(key, attempt)[0])
        return min(max(self.pause * 2.0**attempt * spread, asked), LONGEST_PAUSE)
