"""Confidence intervals for the numbers of a report."""

from dataclasses import replace

from facelab.errors import in_range
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.statistics.bootstrap import check_draws, percentile_interval
from facelab.test_protocol.statistics.metric_draws import metric_draws, parts_of, units_of


def with_intervals(report: Report, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Report:
    """The report with a bootstrap interval for each metric that its trials can tell.

    Percentile intervals, by identity: people are drawn, not pairs (`resampling`). Which metrics
    are known is said by `metric_draws`; the others stay as they are. How the
    intervals were made goes into ``options["bootstrap"]``.

    Args:
        report: What a protocol gave; without trials it is returned as it is.
        draws: Number of bootstrap draws; 1000 for ends that are stable to about a tenth of the width.
        seed: Of the random numbers; the same seed gives the same bits.
        level: Part of the draws between the ends, in (0, 1).

    Raises:
        ConfigError: If ``draws`` or ``level`` is out of range.
        DataError: If the trials contradict each other.
    """
    check_draws(draws)
    in_range("level", level, 0.0, 1.0, low_open=True, high_open=True)
    if not report.trials:
        return report
    intervals = {
        f"{name}{part}": percentile_interval(values, level)
        for part, own in {"": report, **parts_of(report)}.items()
        for name, values in metric_draws(own, [metric.name for metric in own.metrics], draws, seed).items()
    }
    by = {"draws": draws, "seed": seed, "level": level, "by": units_of(report).describe()}
    metrics = tuple(_with(metric, intervals.get(metric.name)) for metric in report.metrics)
    return replace(report, metrics=metrics, options={**report.options, "bootstrap": by})


def _with(metric: Metric, interval: tuple[float, float] | None) -> Metric:
    return metric if interval is None or metric.value is None else replace(metric, interval=interval)
