"""Bootstrap draws of a report's metrics, by their names, from its trials."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.test_protocol import bootstrap
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.bootstrap import ResampledRoc, Statistic, draw_rank_rates
from facelab.test_protocol.metrics import Floats
from facelab.test_protocol.resampling import Units, units_of_pairs, units_of_probes

NUMBER = r"([0-9.]+(?:e[-+]?[0-9]+)?)"
TAR, TPIR, RANK = (re.compile(name) for name in (rf"TAR@FAR={NUMBER}", rf"TPIR@FPIR={NUMBER}", r"rank-([0-9]+)"))

Trials = Mapping[str, NDArray[Any]]


def metric_draws(report: Report, names: Iterable[str], draws: int, seed: int) -> dict[str, Floats]:
    """Values of metrics in bootstrap draws; the same draws for every report on the same trials.

    Known are ``TAR@FAR=x``, ``accuracy`` (at the report's ``threshold``, moved so that its middle is the reported
    value, which is at the thresholds of folds), ``AUC`` and ``EER`` from verification trials; ``rank-k`` and, if the
    trials hold the ``score`` of each probe's best entry, ``TPIR@FPIR=x`` from identification trials.

    Args:
        report: A report with trials.
        names: Names of metrics; those that are unknown or could not be measured on the report's data are left out.
        draws: Number of draws.
        seed: Of the random numbers.

    Returns:
        (draws,) for each name, NaN where a draw left nothing to measure.

    Raises:
        DataError: If the trials contradict each other.
        ConfigError: If ``draws`` is less than 1.
    """
    wanted = [name for name in names if (found := metric_of(report, name)) is not None and found.value is not None]
    trials = report.trials
    if "same" in trials:
        return _pair_draws(report, wanted, draws, seed)
    if "rank" in trials:
        return {**_rank_draws(trials, wanted, draws, seed), **_open_set_draws(trials, wanted, draws, seed)}
    return {}


def units_of(report: Report) -> Units:
    """What is drawn for a report.

    Raises:
        DataError: If the report has no trials, or they contradict each other.
    """
    if "same" in report.trials:
        return units_of_pairs(report.trials)
    if "rank" in report.trials:
        return units_of_probes(report.trials)
    raise DataError(f"{report.protocol}: the report holds no trials; test the model again, with this version.")


def metric_of(report: Report, name: str) -> Metric | None:
    """The correct metric of a name, else the first of that name, else None."""
    found = [metric for metric in report.metrics if metric.name == name]
    return next((metric for metric in found if metric.kind == "correct"), found[0] if found else None)


def _pair_draws(report: Report, names: list[str], draws: int, seed: int) -> dict[str, Floats]:
    trials, same = report.trials, report.trials["same"]
    threshold = metric_of(report, "threshold")
    fixed = None if threshold is None else threshold.value
    statistics: dict[str, Statistic] = {}
    for name in names:
        if found := TAR.fullmatch(name):
            statistics[name] = bootstrap.tar_at_far(float(found[1]))
        elif name == "accuracy" and fixed is not None:
            statistics[name] = bootstrap.accuracy_at(fixed, float(np.mean(same)))
        elif name in ("AUC", "EER"):
            statistics[name] = bootstrap.auc if name == "AUC" else bootstrap.eer
    if not statistics:
        return {}
    sample = ResampledRoc(trials["score"], same, units_of_pairs(trials), [] if fixed is None else [fixed])
    result = dict(zip(statistics, sample.draw(list(statistics.values()), draws, seed), strict=True))
    if "accuracy" in result:
        whole = statistics["accuracy"](sample.curves(np.ones((1 + sample.units.count, 1))))
        result["accuracy"] = np.clip(result["accuracy"] + _value(report, "accuracy") - whole, 0.0, 1.0)
    return result


def _value(report: Report, name: str) -> float:
    metric = metric_of(report, name)
    return float("nan") if metric is None or metric.value is None else metric.value


def _rank_draws(trials: Trials, names: list[str], draws: int, seed: int) -> dict[str, Floats]:
    ranks = {name: int(found[1]) for name in names if (found := RANK.fullmatch(name))}
    if not ranks:
        return {}
    rates = draw_rank_rates(trials["rank"], list(ranks.values()), units_of_probes(trials), draws, seed)
    return dict(zip(ranks, rates, strict=True))


def _open_set_draws(trials: Trials, names: list[str], draws: int, seed: int) -> dict[str, Floats]:
    statistics = {name: bootstrap.tar_at_far(float(found[1])) for name in names if (found := TPIR.fullmatch(name))}
    if not statistics or "score" not in trials:
        return {}
    rank, best = trials["rank"], trials["score"]
    score = np.where(
        rank <= 1, best, best.dtype.type(-np.inf)
    )  # a mate that is not first is not found at any threshold
    sample = ResampledRoc(score, rank > 0, units_of_probes(trials))
    return dict(zip(statistics, sample.draw(list(statistics.values()), draws, seed), strict=True))
