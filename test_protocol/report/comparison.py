"""The comparison table of the field: a row for each model, a column for each benchmark."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from facelab.errors import ConfigError, did_you_mean
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report.metric_text import MISSING, format_metric, unit_of
from facelab.test_protocol.report.report_store import Reports
from facelab.test_protocol.statistics.significance import BEST, Mark, direction, marks

NOISE = "†"
LEGEND = (
    f"Bold: best. {NOISE} not significantly worse than the best at 5 % (Holm): McNemar's test for accuracy and ranks, "
    "paired bootstrap by identity for all else."
)
# The order that papers print, by the letters and digits that a name begins with; all others stand behind.
FIELD_ORDER = (
    "lfw",
    "cfpfp",
    "cplfw",
    "agedb",
    "calfw",
    "ijbb",
    "ijbc",
    "tinyface",
    "ijbs",
    "megaface",
    "rfw",
    "cfpff",
)
USUAL_METRICS = {"ijbb": ("TAR@FAR=1e-4",), "ijbc": ("TAR@FAR=1e-4",), "tinyface": ("rank-1", "rank-5")}
FILES = "files"  # option with the model's files, as paths relative to the report


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: As printed.
        value: To sort by; None for text and for what is missing.
        best: Whether it is the best of its column.
        noise: Whether it is not significantly worse than the best.
        note: How that was tested, or why it could not be.
        ends: Ends of an error bar in the unit of ``value``: the interval, or the value minus and plus its spread; None
            without either.
    """

    text: str
    value: float | None = None
    best: bool = False
    noise: bool = False
    note: str = ""
    ends: tuple[float, float] | None = None

    @property
    def marked(self) -> str:
        """The text, with the sign of `LEGEND` where it applies."""
        return f"{self.text}{NOISE}" if self.noise else self.text


@dataclass(frozen=True)
class Comparison:
    """A table of models.

    Attributes:
        columns: Titles, the first is that of the models.
        rows: Cells of each model, as many as titles.
        links: For each model its files by label, as paths relative to the report.
        warnings: Why numbers may not be comparable, one sentence each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    links: tuple[Mapping[str, str], ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def has_noise(self) -> bool:
        """Whether any cell is marked."""
        return any(cell.noise for row in self.rows for cell in row)


def compare(
    reports: Reports, *, metrics: Sequence[str] = (), draws: int = 0, warnings: Sequence[str] = ()
) -> Comparison:
    """Several models on several protocols; a protocol that a model was not tested on stays empty.

    Args:
        reports: Reports of each model.
        metrics: What to show instead of the usual: ``METRIC`` of every protocol that has it, or ``PROTOCOL:METRIC``.
        draws: Bootstrap draws of the tests that mark what is within noise; 0 for no tests.
        warnings: Sentences to show with the table.

    Raises:
        ConfigError: If no report has one of ``metrics``.
    """
    tested = by_protocol(reports)
    wanted = _chosen(tested, metrics)
    columns = [
        _column(tested[protocol], name, list(reports), draws)
        for protocol in sorted(tested, key=_place_in_field)
        for name in wanted.get(protocol) or _usual(protocol, tested[protocol].values())
    ]
    columns += _facts(reports)
    names = [Cell(model) for model in reports]
    rows = tuple(zip(names, *(cells for _, cells in columns), strict=True))
    links = tuple(_links(of_model) for of_model in reports.values())
    return Comparison(("model", *(title for title, _ in columns)), rows, links, tuple(warnings))


def by_protocol(reports: Reports) -> dict[str, dict[str, Report]]:
    """Reports of each model on each protocol, in the order in which they come."""
    result: dict[str, dict[str, Report]] = {}
    for model, of_model in reports.items():
        for report in of_model:
            result.setdefault(report.protocol, {})[model] = report
    return result


def _letters(protocol: str) -> str:
    return "".join(sign for sign in protocol.lower() if sign.isalnum())


def _place_in_field(protocol: str) -> int:
    letters = _letters(protocol)
    return next((at for at, known in enumerate(FIELD_ORDER) if letters.startswith(known)), len(FIELD_ORDER))


def _usual(protocol: str, reports: Iterable[Report]) -> list[str]:
    """What papers print of a protocol if the reports have it, else the headline of each."""
    letters, reports = _letters(protocol), list(reports)
    usual = next((names for known, names in USUAL_METRICS.items() if letters.startswith(known)), ())
    present = [name for name in usual if any(_metric(report, name) for report in reports)]
    return present or list(dict.fromkeys(report.headline.name for report in reports))


def _chosen(tested: Mapping[str, Mapping[str, Report]], metrics: Sequence[str]) -> dict[str, list[str]]:
    """The names asked for, by protocol."""
    result: dict[str, list[str]] = {}
    for wish in metrics:
        of_one, _, last = wish.partition(":")
        # Only behind the name of a protocol: a metric's name may hold a colon of its own.
        name = last if last and of_one in tested else wish
        places = [of_one] if name != wish else list(tested)
        found = [place for place in places if any(_metric(report, name) for report in tested[place].values())]
        if not found:
            known = {m.name for place in places for report in tested[place].values() for m in report.metrics}
            raise ConfigError(f"no report has the metric {wish!r}.{did_you_mean(name, known)}")
        for place in found:
            result.setdefault(place, []).append(name)
    return result


def _metric(report: Report, name: str) -> Metric | None:
    return next((metric for metric in report.metrics if metric.name == name), None)


def _column(of_protocol: Mapping[str, Report], name: str, models: Sequence[str], draws: int) -> tuple[str, list[Cell]]:
    found = {model: metric for model, report in of_protocol.items() if (metric := _metric(report, name)) is not None}
    first = next(iter(found.values()))
    protocol = next(iter(of_protocol.values())).protocol
    measured = [metric.value for metric in found.values() if metric.value is not None]
    better = direction(found.values())
    best = None if better is None or len(measured) < 2 else BEST[better](measured)
    several = {model: of_protocol[model] for model in found}
    tested = marks(several, name, draws=draws) if draws and best is not None else {}
    cells = [_cell(found.get(model), best, tested.get(model)) for model in models]
    return f"{protocol} {name}{unit_of(first)}", cells


def _cell(metric: Metric | None, best: float | None, mark: Mark | None) -> Cell:
    if metric is None or metric.value is None:
        return Cell(MISSING, note="" if metric is None else metric.note)
    noise = mark is not None and mark.verdict == "within noise" and metric.value != best
    p = "" if mark is None or mark.p is None else f"p = {mark.p:.2g}, "
    note = "" if mark is None or mark.verdict == "best" else f"{mark.verdict}: {p}{mark.note}"
    return Cell(format_metric(metric, interval=False), metric.value, metric.value == best, noise, note, _ends(metric))


def _ends(metric: Metric) -> tuple[float, float] | None:
    if metric.interval is not None or metric.value is None or metric.spread is None:
        return metric.interval
    return metric.value - metric.spread, metric.value + metric.spread


def _facts(reports: Reports) -> list[tuple[str, list[Cell]]]:
    """What stands beside the numbers: size, cost and number format, where it is known of any model."""
    columns = [
        ("parameters [M]", [_count(_option(of_model, "parameters"), 1e6) for of_model in reports.values()]),
        ("MACs [G]", [_count(_option(of_model, "macs"), 1e9) for of_model in reports.values()]),
        ("precision", [Cell(_words(of_model, "precision")) for of_model in reports.values()]),
    ]
    return [(title, cells) for title, cells in columns if any(cell.text != MISSING for cell in cells)]


def _option(reports: Sequence[Report], name: str) -> Any:
    return next((report.options[name] for report in reports if report.options.get(name) is not None), None)


def _count(value: Any, unit: float) -> Cell:
    if not isinstance(value, (int, float)):
        return Cell(MISSING)
    return Cell(f"{value / unit:.1f}" if value >= 100 * unit else f"{value / unit:.3g}", float(value))


def _words(reports: Sequence[Report], name: str) -> str:
    return (
        ", ".join(dict.fromkeys(str(report.options[name]) for report in reports if name in report.options)) or MISSING
    )


def _links(reports: Sequence[Report]) -> dict[str, str]:
    files = _option(reports, FILES)
    return {str(label): str(path) for label, path in files.items()} if isinstance(files, Mapping) else {}
