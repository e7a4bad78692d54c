"""Tests of the difference between two models on the same trials."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.base import Report
from facelab.test_protocol.metrics.metrics import Booleans, Floats
from facelab.test_protocol.statistics.bootstrap import percentile_interval
from facelab.test_protocol.statistics.metric_draws import metric_draws, metric_of, own_threshold, without_trials

FEW_DISCORDANT = 25


@dataclass(frozen=True)
class McNemar:
    """McNemar's test: do two models err on the same trials equally often?

    Attributes:
        only_first: Trials that only the first model decides rightly.
        only_second: Trials that only the second model decides rightly.
        trials: All trials.
        p: Two-sided p value.
        method: ``exact`` binomial, or ``mid-p``.
    """

    only_first: int
    only_second: int
    trials: int
    p: float
    method: Literal["exact", "mid-p"]

    @property
    def difference(self) -> float:
        """Share of right decisions of the first model less that of the second."""
        return (self.only_first - self.only_second) / self.trials


@dataclass(frozen=True)
class PairedBootstrap:
    """Difference of a metric between two models, both on the same draws of people.

    Attributes:
        metric: Its name.
        difference: First less second, as reported.
        interval: Percentile interval of the difference; None if half of the draws left nothing to measure.
        p: Two-sided p value: twice the share of draws on the rarer side of zero, never below 2 / (draws + 1).
    """

    metric: str
    difference: float
    interval: tuple[float, float] | None
    p: float


def mcnemar(first_right: Booleans, second_right: Booleans) -> McNemar:
    """Compare the right and wrong decisions of two models, trial by trial.

    With at most 25 trials on which the models differ the exact binomial test is taken, which is conservative; with
    more its mid-p form, which holds the level on average and needs no chi-square approximation (Fagerland, Lydersen
    and Laake, BMC Medical Research Methodology 13:91, 2013). Trials count as independent: where people are in many
    pairs, trust `paired_bootstrap` more.

    Args:
        first_right: Whether the first model decides each trial rightly, (N,).
        second_right: The same of the second model.

    Raises:
        DataError: If they are not two vectors of one length, or are empty.
    """
    from scipy.stats import binom

    if first_right.ndim != 1 or first_right.shape != second_right.shape or not len(first_right):
        raise DataError(
            f"McNemar's test needs two vectors of one length, got {first_right.shape}, {second_right.shape}."
        )
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    rarer, discordant = min(only_first, only_second), only_first + only_second
    p = min(1.0, 2.0 * float(binom.cdf(rarer, discordant, 0.5)))
    if discordant <= FEW_DISCORDANT:
        return McNemar(only_first, only_second, len(first_right), p, "exact")
    halved = 2.0 * float(binom.cdf(rarer, discordant, 0.5)) - float(binom.pmf(rarer, discordant, 0.5))
    return McNemar(only_first, only_second, len(first_right), min(1.0, halved), "mid-p")


def right_pairs(report: Report) -> Booleans:
    """Which pairs the model decides rightly at its own threshold, (N,).

    The threshold is the report's ``threshold`` metric, else the one of the best accuracy on all pairs.
    """
    score, same = report.trials["score"], report.trials["same"]
    # Rounded to the scores' type: a pair whose score is the threshold must be accepted.
    return np.asarray((score >= score.dtype.type(own_threshold(report))) == same)


def right_probes(report: Report, rank: int = 1) -> Booleans:
    """Which of the probes with a mate have it within ``rank``, (mated probes,)."""
    ranks = report.trials["rank"]
    return np.asarray(ranks[ranks > 0] <= rank)


def paired_bootstrap(
    first: Report, second: Report, metric: str, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> PairedBootstrap:
    """Difference of a metric between two models, with people drawn by `facelab.test_protocol.statistics.resampling`.

    Args:
        first: Report of one model, with trials.
        second: Report of the other model on the same trials.
        metric: For example ``TAR@FAR=1e-4``; `metric_draws` says which are known.
        draws: Number of draws.
        seed: Of the random numbers.
        level: Confidence level of the interval.

    Raises:
        DataError: If the trials differ, or the metric is not known or not measured in one of the reports, or is an
            accuracy: its thresholds come from folds, which trials do not hold, so decisions are compared by `mcnemar`.
        ConfigError: If ``draws`` or ``level`` is out of range.
    """
    check_same_trials(first, second)
    if metric.startswith("accuracy"):
        raise DataError(f"{first.protocol}: accuracies are compared decision by decision; use McNemar's test.")
    of_first, of_second = (one_metric_draws(report, metric, draws, seed) for report in (first, second))
    return difference_of(metric, (reported(first, metric), of_first), (reported(second, metric), of_second), level)


def difference_of(
    metric: str, first: tuple[float, Floats], second: tuple[float, Floats], level: float
) -> PairedBootstrap:
    """The test from the reported value and the draws of each model."""
    gaps = first[1] - second[1]
    measured = gaps[~np.isnan(gaps)]
    rarer = min(int(np.sum(measured <= 0.0)), int(np.sum(measured >= 0.0)))
    # Plus one for what was measured itself: no finite number of draws shows a chance of 0.
    p = min(1.0, 2.0 * (rarer + 1) / (len(measured) + 1))
    return PairedBootstrap(metric, first[0] - second[0], percentile_interval(gaps, level), p)


def one_metric_draws(report: Report, metric: str, draws: int, seed: int) -> Floats:
    """Draws of one metric, (draws,).

    Raises:
        DataError: If the metric is not known or not measured.
    """
    found = metric_draws(report, [metric], draws, seed)
    if metric not in found:
        raise DataError(f"{report.protocol}: {metric} cannot be drawn from the report's trials.")
    return found[metric]


def reported(report: Report, metric: str) -> float:
    """Value of a metric.

    Raises:
        DataError: If the report does not have it.
    """
    found = metric_of(report, metric)
    if found is None or found.value is None:
        raise DataError(f"{report.protocol}: the report has no value of {metric}.")
    return found.value


def check_same_trials(first: Report, second: Report) -> None:
    """Refuse two reports whose trials cannot be compared one by one.

    Raises:
        DataError: If one has no trials, or they differ in number, in people or in what is a mate.
    """
    for report in (first, second):
        if not {"same", "rank"} & report.trials.keys():
            raise without_trials(report)
    mend = "test both models on the same list, with the same policy for images that fail"
    where = f"{first.protocol} and {second.protocol}" if first.protocol != second.protocol else first.protocol
    if first.trials.keys() != second.trials.keys():
        raise DataError(f"{where}: one report holds pairs and the other probes; {mend}.")
    lengths = [len(next(iter(report.trials.values()))) for report in (first, second)]
    if lengths[0] != lengths[1]:
        raise DataError(f"{where}: one model was tested on {lengths[0]:,} trials, the other on {lengths[1]:,}; {mend}.")
    for name in ("same", "left", "right", "person"):
        if name in first.trials and not np.array_equal(first.trials[name], second.trials[name]):
            row = int(np.argmax(first.trials[name] != second.trials[name]))
            raise DataError(f"{where}: the trials differ in {name!r}, first at trial {row} (from 0); {mend}.")
    if "rank" in first.trials and not np.array_equal(first.trials["rank"] > 0, second.trials["rank"] > 0):
        raise DataError(f"{where}: other probes have a mate in the gallery; {mend}.")
