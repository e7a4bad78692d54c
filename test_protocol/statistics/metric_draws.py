"""Bootstrap draws of a report's metrics, by their names, from its trials.

The trials are those of the headline. Where its name has something around it (``surveillance_to_single rank-1``),
metrics with the same around theirs are meant, and those with nothing around.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.metrics.metrics import Floats
from facelab.test_protocol.statistics import bootstrap
from facelab.test_protocol.statistics.bootstrap import ResampledRoc, Statistic, draw_rank_rates
from facelab.test_protocol.statistics.resampling import Units, units_of_pairs, units_of_probes

NUMBER = r"([0-9.]+(?:e[-+]?[0-9]+)?)"
TAR, FNMR, TPIR, RANK = (
    re.compile(name) for name in (rf"TAR@FAR={NUMBER}", rf"FNMR@FMR={NUMBER}", rf"TPIR@FPIR={NUMBER}", r"rank-([0-9]+)")
)
KNOWN = re.compile(rf"{TAR.pattern}|{FNMR.pattern}|{TPIR.pattern}|{RANK.pattern}|accuracy|AUC|EER")
TOLERANCE = 1e-4  # between a reported value and that of the trials, whose scores are float32
FOLD_TOLERANCE = 0.05  # the same of an accuracy at the thresholds of folds, or by a published rule


def metric_draws(report: Report, names: Sequence[str], draws: int, seed: int) -> dict[str, Floats]:
    """Values of metrics in bootstrap draws; the same draws for every report on the same trials.

    Known are ``TAR@FAR=x``, ``FNMR@FMR=x``, ``accuracy`` (at the model's one threshold, moved so that its middle is the
    reported value, which is at the thresholds of folds), ``AUC`` and ``EER`` from verification trials; ``rank-k`` and,
    if the trials hold the ``score`` of each probe's best entry, ``TPIR@FPIR=x`` from identification trials. A mean over
    parts (`means_of`) has the mean of their draws.

    Args:
        report: A report with trials.
        names: Names of metrics. Left out are those that are unknown, that could not be measured on the report's data,
            and those whose reported value is not that of the trials, because they come from others.
        draws: Number of draws.
        seed: Of the random numbers.

    Returns:
        (draws,) for each name, NaN where a draw left nothing to measure.

    Raises:
        DataError: If the trials contradict each other.
        ConfigError: If ``draws`` is less than 1.
    """
    wanted = {
        name: (core, metric.value)
        for name in names
        if (metric := metric_of(report, name)) is not None
        and metric.value is not None
        and (core := core_name(report, name)) is not None
    }
    cores = {core for core, _ in wanted.values()}
    found = _core_draws(report, sorted(cores), draws, seed)
    result = {}
    for name, (core, value) in wanted.items():
        if core in found and reproduced(core, found[core][0], value):
            shift = value - found[core][0] if core == "accuracy" else 0.0
            result[name] = np.clip(found[core][1:] + shift, 0.0, 1.0)
    return result | _mean_draws(report, names, draws, seed)


def _mean_draws(report: Report, names: Sequence[str], draws: int, seed: int) -> dict[str, Floats]:
    """Those of means over parts, of which all were measured; each draw is of the same people in all of them."""
    result: dict[str, Floats] = {}
    for mean, parts in means_of(report).items():
        cores = [name.removesuffix(mean) for name in names if name.endswith(mean)]
        found = parts_of(report) if cores else {}
        if found.keys() >= set(parts) and cores:
            each = [metric_draws(found[part], cores, draws, seed) for part in parts]
            shared = [core for core in cores if all(core in one for one in each)]
            result |= {f"{core}{mean}": np.mean([one[core] for one in each], axis=0) for core in shared}
    return result


def reproduced(core: str, of_trials: float, value: float) -> bool:
    """Whether a reported value is that of the trials, and not one of other trials or by another rule."""
    return abs(of_trials - value) <= (FOLD_TOLERANCE if core == "accuracy" else TOLERANCE)


def own_threshold(report: Report) -> float:
    """The one threshold of a model: the report's ``threshold``, else that of the best accuracy on all pairs."""
    stated = metric_of(report, "threshold")
    if stated is not None and stated.value is not None:
        return stated.value
    return metrics.best_threshold(report.trials["score"], report.trials["same"])


def parts_of(report: Report) -> dict[str, Report]:
    """The same trials under other conditions, by what their metrics' names end with.

    ``accuracy@16px`` is measured on the scores ``score@16px`` of the trials: the part ``@16px`` is a report of its own,
    with these scores and its metrics by their plain names.
    """
    shared = {name: values for name, values in report.trials.items() if not name.startswith("score")}
    result = {}
    for name, values in report.trials.items():
        if part := name.removeprefix("score") if name.startswith("score@") else "":
            own = (replace(m, name=m.name.removesuffix(part)) for m in report.metrics if m.name.endswith(part))
            result[part] = replace(report, metrics=tuple(own), trials={**shared, "score": values})
    return result


def means_of(report: Report) -> dict[str, tuple[str, ...]]:
    """Parts of which the metrics with a name's end are the mean: of ``@occluded`` those of the covered regions."""
    regions = report.options.get("occlude", {}).get("regions", ())
    return {"@occluded": tuple(f"@{region}" for region in regions)} if len(regions) > 1 else {}


def units_of(report: Report) -> Units:
    """What is drawn for a report.

    Raises:
        DataError: If the report has no trials, or they contradict each other.
    """
    if "same" in report.trials:
        return units_of_pairs(report.trials)
    if "rank" in report.trials:
        return units_of_probes(report.trials)
    raise without_trials(report)


def without_trials(report: Report) -> DataError:
    """The refusal of a report that statistics cannot use."""
    return DataError(f"{report.protocol}: the report holds no trials; test the model again, with this version.")


def metric_of(report: Report, name: str) -> Metric | None:
    """The correct metric of a name, else the first of that name, else None."""
    found = [metric for metric in report.metrics if metric.name == name]
    return next((metric for metric in found if metric.kind == "correct"), found[0] if found else None)


def core_name(report: Report, name: str) -> str | None:
    """What a metric of the headline's trials measures: ``rank-1`` for ``surveillance_to_single rank-1``, or None."""
    headline = report.headline.name
    inside = KNOWN.search(headline)
    before, behind = (headline[: inside.start()], headline[inside.end() :]) if inside else ("", "")
    if name.startswith(before) and name.endswith(behind) and not KNOWN.fullmatch(name):
        name = name[len(before) : len(name) - len(behind)]
    return name if KNOWN.fullmatch(name) else None


def _core_draws(report: Report, cores: list[str], draws: int, seed: int) -> dict[str, Floats]:
    """Value on all trials, and then those of the draws, (1 + draws,), for each name."""
    trials = report.trials
    if "same" in trials:
        return _pair_draws(report, cores, draws, seed)
    if "rank" in trials:
        return {**_rank_draws(trials, cores, draws, seed), **_open_set_draws(trials, cores, draws, seed)}
    return {}


def _pair_draws(report: Report, names: list[str], draws: int, seed: int) -> dict[str, Floats]:
    trials, same = report.trials, report.trials["same"]
    fixed: list[float] = []
    statistics: dict[str, Statistic] = {}
    for name in names:
        if found := TAR.fullmatch(name):
            statistics[name] = bootstrap.tar_at_far(float(found[1]))
        elif found := FNMR.fullmatch(name):
            statistics[name] = bootstrap.fnmr_at_fmr(float(found[1]))
        elif name == "accuracy":
            fixed = [own_threshold(report)]
            statistics[name] = bootstrap.accuracy_at(fixed[0], float(np.mean(same)))
        elif name in ("AUC", "EER"):
            statistics[name] = bootstrap.auc if name == "AUC" else bootstrap.eer
    return _drawn(trials["score"], same, units_of_pairs(trials), statistics, draws, seed, fixed)


def _rank_draws(trials: Mapping[str, NDArray[Any]], names: list[str], draws: int, seed: int) -> dict[str, Floats]:
    ranks = {name: int(found[1]) for name in names if (found := RANK.fullmatch(name))}
    if not ranks or not trials["rank"].any():
        return {}
    rank, limits = trials["rank"], list(ranks.values())
    drawn = draw_rank_rates(rank, limits, units_of_probes(trials), draws, seed)
    whole = [np.mean(rank[rank > 0] <= limit) for limit in limits]
    return {name: np.append(first, rest) for name, first, rest in zip(ranks, whole, drawn, strict=True)}


def _open_set_draws(trials: Mapping[str, NDArray[Any]], names: list[str], draws: int, seed: int) -> dict[str, Floats]:
    statistics = {name: bootstrap.tar_at_far(float(found[1])) for name in names if (found := TPIR.fullmatch(name))}
    if "score" not in trials:
        return {}
    rank, best = trials["rank"], trials["score"]
    score = np.where(rank <= 1, best, best.dtype.type(-np.inf))  # a mate behind another entry is never identified
    return _drawn(score, rank > 0, units_of_probes(trials), statistics, draws, seed)


def _drawn(
    score: NDArray[Any],
    same: NDArray[np.bool_],
    units: Units,
    statistics: Mapping[str, Statistic],
    draws: int,
    seed: int,
    thresholds: Sequence[float] = (),
) -> dict[str, Floats]:
    if not statistics or same.all() or not same.any():
        return {}
    sample = ResampledRoc(score, same, units, thresholds)
    drawn = sample.draw(list(statistics.values()), draws, seed)
    whole = sample.curves(np.ones((1 + units.count, 1)))
    return {name: np.append(one(whole), rest) for (name, one), rest in zip(statistics.items(), drawn, strict=True)}
