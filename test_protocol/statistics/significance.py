"""Which models differ from the best one by more than chance: what comparison tables mark.

``within_noise(reports: Mapping[str, Report], *, level: float = 0.05, draws: int = 1000, seed: int = 0)
-> frozenset[str]`` gives the models whose headline does not differ significantly from the best one's; ``marks(reports,
metric=None, …) -> dict[str, Mark]`` says the same of any metric, with p values and why a model could not be tested.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from facelab.errors import DataError, in_range
from facelab.test_protocol.base import Better, Metric, Report
from facelab.test_protocol.metrics.metrics import Booleans, Floats
from facelab.test_protocol.statistics.metric_draws import RANK, core_name, metric_of, parts_of, reproduced
from facelab.test_protocol.statistics.paired import (
    check_same_trials,
    difference_of,
    mcnemar,
    one_metric_draws,
    reported,
    right_pairs,
    right_probes,
)

BEST = {"high": max, "low": min}


@dataclass(frozen=True)
class Mark:
    """How one model stands against the best one.

    Attributes:
        verdict: ``best``, ``within noise`` of it, ``worse``, or ``untested``.
        p: p value after Holm's correction; None for the best and the untested.
        note: The test, or why there is none.
    """

    verdict: Literal["best", "within noise", "worse", "untested"]
    p: float | None = None
    note: str = ""


def within_noise(
    reports: Mapping[str, Report], *, level: float = 0.05, draws: int = 1000, seed: int = 0
) -> frozenset[str]:
    """Models whose headline does not differ significantly from the best one's, without the best one itself.

    Models that cannot be tested (no trials, other trials) are not among them; `marks` says why.

    Args:
        reports: Report of each model on one protocol.
        level: Chance of calling any model worse though none is.
        draws: Bootstrap draws, where the headline needs a bootstrap.
        seed: Of the random numbers.

    Raises:
        ConfigError: If ``level`` or ``draws`` is out of range.
    """
    found = marks(reports, level=level, draws=draws, seed=seed)
    return frozenset(model for model, mark in found.items() if mark.verdict == "within noise")


def marks(
    reports: Mapping[str, Report], metric: str | None = None, *, level: float = 0.05, draws: int = 1000, seed: int = 0
) -> dict[str, Mark]:
    """How each model stands against the best one.

    Accuracy at the models' own thresholds and rank-k are compared by McNemar's test, all else by a paired bootstrap by
    identity. The p values of all models are corrected together (Holm, Scandinavian Journal of Statistics 6, 1979).

    Args:
        reports: Report of each model on one protocol.
        metric: Name of the metric; the headline of the first report by default.
        level: Chance of calling any model worse though none is.
        draws: Bootstrap draws.
        seed: Of the random numbers.

    Raises:
        ConfigError: If ``level`` or ``draws`` is out of range.
    """
    in_range("level", level, 0.0, 1.0, low_open=True, high_open=True)
    if not reports:
        return {}
    name = metric or next(iter(reports.values())).headline.name
    result = {model: Mark("untested", note=f"{name} was not measured") for model in reports}
    values = {model: found.value for model, report in reports.items() if (found := metric_of(report, name)) is not None}
    measured = {model: value for model, value in values.items() if value is not None}
    if not measured:
        return result
    better = direction(found for report in reports.values() if (found := metric_of(report, name)) is not None)
    if better is None:
        return {model: Mark("untested", note=f"nobody says whether more or less {name} is better") for model in reports}
    best = BEST[better](measured, key=measured.__getitem__)
    part = next((part for part in parts_of(reports[best]) if name.endswith(part)), "")
    rival = _Rival(_part(reports[best], part), name.removesuffix(part), draws, seed)
    raw: dict[str, float] = {}
    for model in measured:
        try:
            raw |= {model: rival.p(_part(reports[model], part))} if model != best else {}
        except DataError as error:
            result[model] = Mark("untested", note=str(error))
    verdicts: dict[bool, Literal["worse", "within noise"]] = {True: "worse", False: "within noise"}
    for model, p in holm(raw).items():
        result[model] = Mark(verdicts[p <= level], p, rival.method)
    return {**result, best: Mark("best")}


def _part(report: Report, part: str) -> Report:
    """The report, or the part of it whose metrics end with ``part``; see `parts_of`."""
    parts = {"": report, **parts_of(report)}
    if part not in parts:
        raise DataError(f"{report.protocol}: the report holds no trials of '{part}'; test the model again.")
    return parts[part]


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Corrected p values, for several comparisons: reject where they are at most the level (Holm 1979, step-down)."""
    result: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p, key=p.__getitem__)):
        # Never below that of a smaller p value: who is less surprising must not be rejected sooner.
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        result[name] = highest
    return result


def direction(metrics: Iterable[Metric]) -> Better | None:
    """Which values of one metric are better, as those who made it say; None if nobody does, or two contradict."""
    said = {metric.better for metric in metrics} - {None}
    return said.pop() if len(said) == 1 else None


class _Rival:
    """The best model, against which the others are tested; its draws are made once."""

    def __init__(self, report: Report, metric: str, draws: int, seed: int) -> None:
        self.report, self.metric, self.draws, self.seed = report, metric, draws, seed
        self.core = core_name(report, metric) or ""
        self.rank = RANK.fullmatch(self.core)
        self.accuracy = self.core == "accuracy"
        decisions = self.rank is not None or self.accuracy
        self.method = "McNemar, Holm" if decisions else "paired bootstrap by identity, Holm"
        self._own: Floats | None = None

    def p(self, other: Report) -> float:
        """The p value of the difference, not corrected.

        Raises:
            DataError: If the trials differ or do not hold what the metric needs.
        """
        check_same_trials(self.report, other)
        if self.rank is not None or self.accuracy:
            return mcnemar(self._right(self.report), self._right(other)).p
        if self._own is None:
            self._own = one_metric_draws(self.report, self.metric, self.draws, self.seed)
        of_other = one_metric_draws(other, self.metric, self.draws, self.seed)
        own, others = ((reported(r, self.metric), d) for r, d in ((self.report, self._own), (other, of_other)))
        # The level is that of the interval, which nobody asks for here.
        return difference_of(self.metric, own, others, 0.95).p

    def _right(self, report: Report) -> Booleans:
        needed = "rank" if self.rank is not None else "same"
        if needed not in report.trials:
            raise DataError(f"{report.protocol}: the trials do not tell {self.metric}, they hold no {needed!r}.")
        right = right_pairs(report) if self.rank is None else right_probes(report, int(self.rank[1]))
        if not reproduced(self.core, float(np.mean(right)), reported(report, self.metric)):
            raise DataError(f"{report.protocol}: {self.metric} is not that of the trials, which follow another rule.")
        return right
