"""A study: variants of one run, trained one after the other on the same data, and one table at the end."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from facelab import distributed
from facelab.config import Tree, merge, read_config
from facelab.errors import ConfigError
from facelab.model.face_model import load_model
from facelab.plugins import import_plugins
from facelab.progress_bar import counted_bars
from facelab.run.assembly import scoring_of
from facelab.run.run import check_changes, open_protocols, run_training, test_network, trained_files
from facelab.run.settings import (
    COLUMNS,
    SPEC_PATHS,
    STUDY_KEYS,
    VARIANTS,
    RunConfig,
    find_config,
    make_config,
)
from facelab.run.shipped import shipped_configs
from facelab.test_protocol.base import Report
from facelab.test_protocol.extraction.quality import open_scores
from facelab.test_protocol.report.report_store import JSON, read_reports
from facelab.weights.whole_file import write_whole

STUDY, BASE, FROZEN, VARIANT = "study.yaml", "base", "frozen", "variant"
NAME = re.compile(r"^[\w][\w.+-]*$")


@dataclass(frozen=True)
class Study:
    """What a file with ``variants`` means.

    Attributes:
        tree: The settings as read, to be kept beside the results.
        folder: Folder that holds the folders of all runs.
        common: What the variants share; its protocols test the base model.
        base: The run that trains the base model first, or None.
        variants: The runs by their names.
        columns: Metrics that the table shows instead of the usual ones.
    """

    tree: Tree
    folder: Path
    common: RunConfig
    base: RunConfig | None
    variants: dict[str, RunConfig]
    columns: tuple[str, ...]

    @property
    def runs(self) -> list[RunConfig]:
        """All settings: those of the base if it is trained, what the variants share, and the variants."""
        return [*([] if self.base is None else [self.base]), self.common, *self.variants.values()]


def make_study(tree: Mapping[str, Any], folder: Path, where: str) -> Study:
    """Check the settings of a study and of each of its runs.

    ``base`` may hold settings instead of a path: then a base model is trained first. They stand alone, or begin with
    ``extends``, a file or a shipped configuration. A variant holds what it changes in the common settings, ``{}`` if
    nothing; names of heads, adapters … replace others as everywhere. ``null`` takes a variant back. In a variant,
    ``{variant: NAME}`` stands for the folder of one that is trained before it: its base, or its teacher.

    Args:
        tree: Merged settings with ``variants``.
        folder: Where the runs will lie.
        where: Names the file in messages.

    Raises:
        ConfigError: If anything in it cannot work.
    """
    common = {key: value for key, value in tree.items() if key not in STUDY_KEYS}
    base = None
    if isinstance(common.get("base"), Mapping):
        base = make_config({**_extended(common["base"]), **_place(BASE, folder)}, f"{where}, base")
        common["base"] = str(folder / BASE)
    variants = {
        name: make_config({**merge(common, changes, SPEC_PATHS), **_place(name, folder)}, f"{where}, variant '{name}'")
        for name, changes in _with_paths(_variants(tree, where), folder, where).items()
    }
    columns = tree.get(COLUMNS) or []
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        raise ConfigError(f"{where}: 'columns' must be a list of metrics, for example [accuracy], got {columns!r}.")
    return Study(dict(tree), folder, make_config(common, where), base, variants, tuple(columns))


def _variants(tree: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    variants = tree[VARIANTS]
    if not isinstance(variants, Mapping) or not variants:
        raise ConfigError(f"{where}: 'variants' must hold runs by name, for example {{cosface: {{head: CosFace}}}}.")
    chosen = {name: changes for name, changes in variants.items() if changes is not None}
    for name, changes in chosen.items():
        if name in (BASE, FROZEN) or not NAME.match(name):
            raise ConfigError(f"{where}: a variant cannot be called '{name}'.")
        if not isinstance(changes, Mapping):
            raise ConfigError(f"{where}: variant '{name}' must hold the settings that it changes, got {changes!r}.")
    return chosen


def _with_paths(variants: Mapping[str, Tree], folder: Path, where: str) -> dict[str, Tree]:
    """The same with the folders of earlier variants where ``{variant: NAME}`` stands."""
    earlier: dict[str, str] = {}
    found = {}
    for name, changes in variants.items():
        found[name] = _named(changes, earlier, f"{where}, variant '{name}'")
        earlier[name] = str(folder / name)
    return found


def _named(value: Any, earlier: Mapping[str, str], where: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    if value.keys() != {VARIANT}:
        return {key: _named(one, earlier, where) for key, one in value.items()}
    if value[VARIANT] not in earlier:
        raise ConfigError(
            f"{where}: {{{VARIANT}: {value[VARIANT]}}} is no variant that is trained before it; "
            f"those are: {', '.join(earlier) or 'none'}."
        )
    return earlier[value[VARIANT]]


def _extended(base: Mapping[str, Any]) -> Tree:
    own = {key: value for key, value in base.items() if key != "extends"}
    parent = base.get("extends")
    if parent is None:
        return own
    return merge(read_config(find_config(str(parent)), SPEC_PATHS, shipped_configs()), own, SPEC_PATHS)


def _place(name: str, folder: Path) -> Tree:
    return {"name": name, "output": str(folder)}


def run_study(study: Study, console: Console, *, allow_changes: bool = False) -> tuple[int, dict[str, list[Report]]]:
    """Train what is not finished yet, test the base model, and give all results.

    Args:
        study: What to do.
        console: Where the main process reports.
        allow_changes: Go on with runs although settings differ.

    Returns:
        0 or the number of the signal that stopped a run; and the reports of each run, the base's first, as
        ``frozen``.

    Raises:
        FacelabError: For everything that is the user's to mend.
    """
    if distributed.is_main():
        write_whole(study.folder / STUDY, yaml.safe_dump(study.tree, sort_keys=False))
    reports: dict[str, list[Report]] = {}
    if study.base is not None:
        stopped, _ = _member(study.base, console, allow_changes)
        if stopped:
            return stopped, reports
    if study.common.base is not None:
        reports[FROZEN] = _frozen(study.common, study.folder / FROZEN, console)
    for name, config in study.variants.items():
        stopped, reports[name] = _member(config, console, allow_changes)
        if stopped:
            return stopped, reports
    return 0, {name: of_run for name, of_run in reports.items() if of_run}


def _member(config: RunConfig, console: Console, allow_changes: bool) -> tuple[int, list[Report]]:
    """Train one run unless it is finished; gives the signal that stopped it, or 0, and its reports."""
    from facelab.test_protocol.report.run_report import write_run_report

    folder = config.output / config.name
    console.rule(config.name)
    if _finished(folder):
        check_changes(folder, config, allow_changes)
        console.print(f"'{folder}' is finished already")
        return 0, read_reports(folder)[config.name]
    result = run_training(config, folder, console, resume=True, allow_changes=allow_changes)
    if not result.progress.complete:
        return result.progress.stopped_by, []
    if distributed.is_main():
        write_run_report(folder, {config.name: list(result.reports)}, files={config.name: trained_files(folder)})
    distributed.barrier()
    return 0, list(result.reports)


def _frozen(config: RunConfig, folder: Path, console: Console) -> list[Report]:
    """The base model as it is, on the protocols of the study; empty without protocols."""
    from facelab.test_protocol.report.run_report import write_run_report

    if not config.evaluation.wanted:
        return []
    if _finished(folder):
        return read_reports(folder)[FROZEN]
    console.rule(FROZEN)
    import_plugins(config.plugins)
    model = load_model(str(config.base), device=config.training.device)
    protocols = open_protocols(config, console)
    with counted_bars(console) as show:
        scoring = scoring_of(config, model.device, show)
        tables = scoring.tables(config.evaluation.quality, protocols, model.network, None)
    scores = open_scores(protocols, tables, complete=config.evaluation.on_corrupt == "error")
    reports = test_network(model.network, protocols, scores, config, model.device)
    if distributed.is_main():
        write_run_report(folder, {FROZEN: reports})
    distributed.barrier()
    return reports


def _finished(folder: Path) -> bool:
    # One process looks for all: if they saw the file come at different moments, they would part ways.
    done: bool = distributed.broadcast_object((folder / JSON).is_file())
    return done
