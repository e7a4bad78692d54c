"""Do the arms of a study decide better than one of them? McNemar's test on the pairs of every test, over all seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.errors import one_of
from facelab.test_protocol.base import Report
from facelab.test_protocol.report.report_store import read_reports
from facelab.test_protocol.statistics.metric_draws import parts_of
from facelab.test_protocol.statistics.paired import mcnemar, right_pairs

COLUMNS = ("test", "arm", "against", "accuracy, points", "only the one and only the other right", "p")
SMALL = 1e-4


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
