"""Do the arms of a study decide better than one of them? Tests on the pairs of every test, over all seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.errors import one_of
from facelab.test_protocol.base import Report
from facelab.test_protocol.report.report_store import read_reports
from facelab.test_protocol.statistics.metric_draws import metric_draws, parts_of
from facelab.test_protocol.statistics.paired import difference_of, mcnemar, reported, right_pairs

COLUMNS = ("test", "arm", "against", "accuracy, points", "only the one and only the other right", "p")
SMALL = 1e-4
DRAWN_COLUMNS = ("test", "arm", "against", "seeds", "points", "95 % interval", "p")
DRAWS, LEVEL = 2000, 0.95
Draws = tuple[float, NDArray[np.float64]]
"""A metric as reported, and in each draw of people."""


def paired_table(runs: Mapping[str, Sequence[Path]], against: str) -> str:
    """Each arm against one of them, as Markdown.

    Args:
        runs: Folders of the finished runs of each arm; the tests of all are the same pairs.
        against: Name of the arm that the others are compared with.

    Raises:
        FacelabError: If there is no such arm, or a run cannot be read.
    """
    seeds = len(runs[one_of("arm", against, list(runs))])
    right = {arm: decisions(paths[:seeds]) for arm, paths in runs.items() if len(paths) >= seeds}
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|--:|--:|--:|"]
    for test in right[against]:
        for arm, decided in right.items():
            if arm != against:
                found = mcnemar(decided[test], right[against][test])
                counts = f"{found.only_first} : {found.only_second}"
                p = f"{found.p:.4f}" if found.p >= SMALL else f"below {SMALL:.4f}"
                lines.append(f"| {test} | {arm} | {against} | {100 * found.difference:+.2f} | {counts} | {p} |")
    return "\n".join(lines)


def drawn_table(runs: Mapping[str, Sequence[Path]], against: Sequence[str], metrics: Sequence[str]) -> str:
    """Each arm against some others on the seeds that both have, as Markdown.

    Seeds are averaged, and people are drawn, the same ones for both arms and in all conditions: a test that shows each
    pair under several conditions does not count it as several.

    Args:
        runs: Folders of the finished runs of each arm, named ``ARM-SEED``.
        against: Names of the arms that the others are compared with; those without a run are left out.
        metrics: Of the runs' only protocol, such as ``accuracy`` and ``accuracy@occluded``. Left out is what
            `metric_draws` leaves out, for example accuracies of very few pairs.

    Raises:
        FacelabError: If a run cannot be read, or has no such metric.
    """
    drawn = {
        arm: {path.name.rpartition("-")[2]: _draws(path, metrics) for path in paths} for arm, paths in runs.items()
    }
    lines = [f"| {' | '.join(DRAWN_COLUMNS)} |", "|---|---|---|--:|--:|--:|--:|"]
    pairs = [(arm, other) for other in against if other in drawn for arm in drawn if arm != other]
    for metric in metrics:
        for arm, other in pairs:
            own, others = drawn[arm], drawn[other]
            if seeds := [seed for seed in own if metric in own[seed] and metric in others.get(seed, {})]:
                sides = [[drawn[one][seed][metric] for seed in seeds] for one in (arm, other)]
                cells = [metric, arm, other, str(len(seeds)), *_difference(metric, *sides)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _draws(path: Path, metrics: Sequence[str]) -> dict[str, Draws]:
    """Of a metric under one condition, the trials are those of the condition."""
    ((report,),) = read_reports(path).values()
    parts = parts_of(report)
    found: dict[str, Draws] = {}
    for name in metrics:
        part = next((end for end in parts if name.endswith(end)), "")
        own, core = parts.get(part, report), name.removesuffix(part)
        if (draws := metric_draws(own, [core], DRAWS, seed=0).get(core)) is not None:
            found[name] = (reported(own, core), draws)
    return found


def _difference(metric: str, own: Sequence[Draws], other: Sequence[Draws]) -> tuple[str, str, str]:
    """Points, their interval and p of the means over seeds."""
    values = [float(np.mean([value for value, _ in side])) for side in (own, other)]
    drawn = [np.mean([draws for _, draws in side], axis=0) for side in (own, other)]
    found = difference_of(metric, (values[0], drawn[0]), (values[1], drawn[1]), LEVEL)
    ends = "" if found.interval is None else "{:+.2f} to {:+.2f}".format(*(100 * end for end in found.interval))
    return f"{100 * found.difference:+.2f}", ends, f"{found.p:.3f}"


def decisions(paths: Sequence[Path]) -> dict[str, NDArray[np.bool_]]:
    """Which pairs each test's runs decide rightly at their own thresholds, one run after the other."""
    tests: dict[str, list[NDArray[np.bool_]]] = {}
    for path in paths:
        (reports,) = read_reports(path).values()
        for report in reports:
            for name, part in _tests(report).items():
                tests.setdefault(name, []).append(right_pairs(part))
    return {name: np.concatenate(right) for name, right in tests.items()}


def _tests(report: Report) -> dict[str, Report]:
    """The images as they are, and under each other condition."""
    return {report.protocol: report, **{f"{report.protocol}{name}": part for name, part in parts_of(report).items()}}
