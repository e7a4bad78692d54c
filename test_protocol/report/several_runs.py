"""Several runs of one model, for example with other seeds, as one row: mean ± standard deviation."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from facelab.errors import ConfigError
from facelab.test_protocol.base import Metric, Report


def grouped_runs(
    reports: Mapping[str, Sequence[Report]], groups: Mapping[str, Sequence[str]]
) -> dict[str, list[Report]]:
    """Reports of groups of runs instead of single ones; runs that are in no group stay as they are, behind the groups.

    Args:
        reports: Reports of each run.
        groups: Name of a group, and the names of its runs.

    Raises:
        ConfigError: If a run is unknown, in two groups, or its name is that of a group that it is not in.
    """
    named = [run for runs in groups.values() for run in runs]
    for run in named:
        if run not in reports:
            raise ConfigError(f"there is no run {run!r} to group; there are {', '.join(reports)}.")
        if named.count(run) > 1:
            raise ConfigError(f"run {run!r} is named twice in the groups.")
    alone = {run: list(of_run) for run, of_run in reports.items() if run not in named}
    if clash := alone.keys() & groups.keys():
        raise ConfigError(f"{min(clash)!r} names a group and a run outside of it.")
    return {name: mean_of_runs({run: reports[run] for run in runs}) for name, runs in groups.items()} | alone


def mean_of_runs(runs: Mapping[str, Sequence[Report]]) -> list[Report]:
    """One report for each protocol that all of the runs were tested on: means, and standard deviations as spread.

    The deviation is that of a sample (n - 1): how far another run may lie from these, not how well their mean is
    known. Spreads, intervals, curves, trials and mistakes of single runs do not carry over. Options are kept where all
    runs agree; ``runs`` names the runs.

    Args:
        runs: Reports of each run by its name.
    """
    by_run = [{report.protocol: report for report in of_run} for of_run in runs.values()]
    protocols = [name for name in by_run[0] if all(name in of_run for of_run in by_run)] if by_run else []
    return [_mean([of_run[protocol] for of_run in by_run], list(runs)) for protocol in protocols]


def _mean(reports: Sequence[Report], names: Sequence[str]) -> Report:
    metrics = [_mean_metric(metric, reports, names) for metric in reports[0].metrics]
    return Report(reports[0].protocol, tuple(metrics), {**_shared_options(reports), "runs": list(names)})


def _mean_metric(metric: Metric, reports: Sequence[Report], names: Sequence[str]) -> Metric:
    key = (metric.name, metric.kind)
    values = [next((m.value for m in report.metrics if (m.name, m.kind) == key), None) for report in reports]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        note = f"not measured in run {names[values.index(None)]}"
        return replace(metric, value=None, spread=None, note=note, interval=None)
    note = "one run" if len(known) == 1 else f"mean ± standard deviation of {len(known)} runs"
    spread = statistics.stdev(known) if len(known) > 1 else None
    return replace(metric, value=statistics.fmean(known), spread=spread, note=note, interval=None)


def _shared_options(reports: Sequence[Report]) -> dict[str, Any]:
    first = reports[0].options
    return {
        name: value
        for name, value in first.items()
        if all(name in report.options and report.options[name] == value for report in reports)
    }
