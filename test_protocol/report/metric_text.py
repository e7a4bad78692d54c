"""Numbers of reports, and what they depend on, as text."""

import math

from facelab.test_protocol.base import Metric, Report

MISSING = "–"


def unit_of(metric: Metric) -> str:
    """What stands behind a metric's name in a title."""
    return " [%]" if metric.unit == "fraction" else ""


def format_metric(metric: Metric, *, interval: bool = True) -> str:
    """Value, spread and interval as text: fractions in percent, scores with four digits, counts whole.

    For example ``99.50 ± 0.12 [99.31, 99.66]``, or without the interval ``99.50 ± 0.12``.
    """
    if metric.value is None or not math.isfinite(metric.value):
        return MISSING
    value = _number(metric.value, metric.unit)
    spread = "" if metric.spread is None else f" ± {_number(metric.spread, metric.unit)}"
    ends = [_number(end, metric.unit) for end in (metric.interval or ()) if interval]
    return f"{value}{spread} [{', '.join(ends)}]" if ends else f"{value}{spread}"


def _number(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if unit == "count" else f"{value:.4f}"


def conditions(report: Report) -> str:
    """How the embeddings of a report were made, for example ``fp32 on cpu; 112x112 RGB, -1..1; 7,701 images``."""
    said = report.options
    by = f" by {said['backend']}" if "backend" in said else ""
    parts = (
        f"{said['precision']} on {said['device']}{by}" if "precision" in said else "",
        f"{said['input']}{' (resized)' if said.get('resize') else ''}" if "input" in said else "",
        f"{'with' if said['flip'] else 'without'} mirrored images" if "flip" in said else "",
        f"{said['images']:,} images" if "images" in said else "",
        f"without the {said['excluded_pairs']:,} pairs of {said['excluded_people']:,} people"
        if "excluded_pairs" in said
        else "",
        "{level:.4g} % intervals in [ ], {draws:,} bootstrap draws {by}".format_map(
            {**said["bootstrap"], "level": 100 * said["bootstrap"]["level"]}
        )
        if "bootstrap" in said
        else "",
    )
    return "; ".join(part for part in parts if part)
