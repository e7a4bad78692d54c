"""What an export changes in the numbers of a protocol, and how sure that is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from facelab.errors import DataError
from facelab.test_protocol.base import Report
from facelab.test_protocol.statistics.paired import check_same_trials, mcnemar, paired_bootstrap, right_pairs

Z = 1.959964  # 95 % of a normal distribution lie within


@dataclass(frozen=True)
class Difference:
    """One metric before and after.

    Attributes:
        metric: Its name.
        before: Of the model.
        after: Of the exported one.
        interval: 95 % interval of after less before; None where nothing could be drawn.
    """

    metric: str
    before: float
    after: float
    interval: tuple[float, float] | None

    def describe(self) -> str:
        """For example ``accuracy 0.9945 -> 0.9943, difference -0.0002 [-0.0010, 0.0006]``."""
        interval = "" if self.interval is None else f" [{self.interval[0]:+.5f}, {self.interval[1]:+.5f}]"
        change = self.after - self.before
        return f"{self.metric} {self.before:.5f} -> {self.after:.5f}, difference {change:+.5f}{interval}"


def differences(before: Report, after: Report, draws: int = 1000) -> Iterator[Difference]:
    """Every metric that has a direction and can be compared trial by trial.

    Accuracies by the pairs that only one of both decides rightly (McNemar), with the normal interval of paired shares;
    all else by a bootstrap that draws the same people for both.

    Args:
        before: Report of the model.
        after: Report of the exported one, on the same protocol.
        draws: Of the bootstrap.

    Raises:
        DataError: If the trials differ.
    """
    check_same_trials(before, after)
    found = {metric.name: metric.value for metric in after.metrics}
    for metric in before.metrics:
        value = found.get(metric.name)
        if metric.better is None or metric.value is None or value is None:
            continue
        try:
            yield Difference(metric.name, metric.value, value, _interval(before, after, metric.name, draws))
        except DataError:  # the trials do not hold what this one is made of
            continue


def _interval(before: Report, after: Report, metric: str, draws: int) -> tuple[float, float] | None:
    if not metric.startswith("accuracy"):
        return paired_bootstrap(after, before, metric, draws=draws).interval
    test = mcnemar(right_pairs(after), right_pairs(before))
    discordant = test.only_first + test.only_second
    # Variance of a mean of n numbers of which these many are 1 or -1.
    spread = math.sqrt(max(discordant / test.trials - test.difference**2, 0.0) / test.trials)
    return test.difference - Z * spread, test.difference + Z * spread
