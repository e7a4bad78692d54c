"""``facelab compare``: tables, curves and one page of several tested models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from facelab.cli.commands import command
from facelab.cli.options import writable
from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.test_protocol.base import Report

REPORT = "report.json"


@command("compare", place=30)
def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN...",
            help="Folders of runs or of tests, or their report.json; NAME is what the tables call the model.",
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Column to show instead of the usual one: METRIC, or PROTOCOL:METRIC. Repeatable."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Runs of one configuration as one row, mean ± deviation: NAME=MODEL,MODEL. Repeatable."),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="Bootstrap draws of the tests that mark what is within noise; 0 for no tests.", min=0, max=1_000_000
        ),
    ] = 1000,
    out: Annotated[
        Path, typer.Option(help="Folder for the tables, plots and the page.", callback=writable("folder"))
    ] = Path("comparison"),
) -> None:
    """Compare tested models: one table, curves, and one page with the hardest errors."""
    from facelab.test_protocol.report.comparison import compare
    from facelab.test_protocol.report.report import render_table
    from facelab.test_protocol.report.run_report import warnings_of, write_comparison
    from facelab.test_protocol.report.several_runs import grouped_runs

    reports = _gather(runs, out)
    warnings = warnings_of(reports)
    reports = grouped_runs(reports, _groups(group or ())) if group else reports
    comparison = compare(reports, metrics=metric or (), draws=draws, warnings=warnings)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(render_table(comparison))
    for warning in warnings:
        console.print("warning: ", style="bold yellow", end="")
        console.print(warning)
    for what, path in write_comparison(out, reports, comparison).items():
        console.print(f"{what:>10}  {path}")


def _gather(runs: Sequence[str], out: Path) -> "dict[str, list[Report]]":
    """Reports of every model of some runs, under names that differ; their links lead from ``out``.

    Raises:
        ConfigError: If two models have one name, and nothing tells them apart.
    """
    names: list[str] = []
    folders: list[Path | None] = []  # what tells a model apart that the user gave no name
    reports: list[list[Report]] = []
    for run in runs:
        name, path = _split(run)
        models = _read(path, out)
        for model, of_model in models.items():
            names.append(model if name is None else name if len(models) == 1 else f"{name} {model}")
            folders.append((path.parent if path.is_file() else path).resolve() if name is None else None)
            reports.append(of_model)
    shown = _told_apart(names, folders)
    for place, name in enumerate(shown):
        if name in shown[:place]:
            raise ConfigError(f"two models are called '{name}'; name them: NAME={_split(runs[-1])[1]}")
    return dict(zip(shown, reports, strict=True))


def _told_apart(names: Sequence[str], folders: Sequence[Path | None]) -> list[str]:
    """The names; each of several equal ones with its folder, and with as many parents as it takes."""
    shown = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        equal = {place: folder.parts for place, folder in enumerate(folders) if folder and names[place] == name}
        longest = max(map(len, equal.values()), default=0)
        depths = (depth for depth in range(1, longest + 1) if len({f[-depth:] for f in equal.values()}) == len(equal))
        depth = next(depths, 1)
        shown = [f"{name} ({'/'.join(equal[at][-depth:])})" if at in equal else old for at, old in enumerate(shown)]
    return shown


def _split(run: str) -> tuple[str | None, Path]:
    name, equals, path = run.partition("=")
    # A folder's own name may have an equals sign.
    return (name, Path(path)) if equals and not Path(run).exists() else (None, Path(run))


def _read(path: Path, out: Path) -> "dict[str, list[Report]]":
    """Reports at a path; of a run's folder those of its latest test, and of its training on other protocols."""
    from facelab.test_protocol.report.model_links import moved
    from facelab.test_protocol.report.report_store import read_reports

    if path.is_file():
        return moved(read_reports(path), path.parent, out)
    found = [folder for folder in (path / "test", path) if (folder / REPORT).is_file()]
    if not found:
        raise ConfigError(f"'{path}' holds no {REPORT}; test the model first: facelab test {path}")
    latest, *older = (moved(read_reports(folder), folder, out) for folder in found)
    if older and len(latest) == len(older[0]) == 1:
        (model,), ((_, trained),) = latest, older[0].items()
        known = {report.protocol for report in latest[model]}
        return {model: [*latest[model], *(report for report in trained if report.protocol not in known)]}
    return latest


def _groups(words: Sequence[str]) -> dict[str, list[str]]:
    groups = {}
    for word in words:
        name, equals, models = word.partition("=")
        if not (name and equals and models):
            raise ConfigError(f"--group is '{word}', but must be NAME=MODEL,MODEL.")
        groups[name] = [model.strip() for model in models.split(",")]
    return groups
