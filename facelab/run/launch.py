"""What ``facelab train`` does around a run: processes, folder, greeting, result table, report."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from facelab import distributed
from facelab.config import Tree, merge, parse_overrides
from facelab.errors import ConfigError, FacelabError
from facelab.outside.yaml import read_yaml
from facelab.plugins import refuse_plugins
from facelab.run.run import RunResult, run_training, saved_settings, trained_files
from facelab.run.run_folder import LOCK, claimed
from facelab.run.settings import (
    SPEC_PATHS,
    STUDY_KEYS,
    VARIANTS,
    RunConfig,
    file_and_changes,
    find_config,
    load_tree,
    make_config,
)
from facelab.run.study import STUDY, Study, make_study, run_study
from facelab.run.tracking import CONFIG

DEFAULT_CONFIG = "conventional"
DRAWS = 1000  # of the tests that mark what is within noise in the table of a study


def launch(
    config: str | None,
    overrides: Sequence[str],
    *,
    run: Path | None = None,
    resume: bool = False,
    checkpoint: str = "last",
    allow_changes: bool = False,
) -> int:
    """Train by the command line's words.

    Args:
        config: A YAML file or a shipped configuration; None takes that of the run to resume, else the default.
        overrides: ``key=value`` pairs.
        run: Folder of the run; None makes a new one.
        resume: Go on from a checkpoint of the run; processes that torchrun may start again do so anyway.
        checkpoint: Which one: ``last``, ``best`` or ``step-<update>``.
        allow_changes: Resume although settings differ.

    Returns:
        0, or the number of the signal that stopped training.

    Raises:
        FacelabError: For everything that is the user's to mend.
    """
    if resume and run is None:
        raise ConfigError("--resume needs --run FOLDER, the run to go on with.")
    if run is None and distributed.may_restart():
        raise ConfigError(
            "torchrun starts the processes again where one is lost (--max-restarts), and without a folder they would "
            "begin another run each time; name one by --run FOLDER."
        )
    foreign = resume and config is None
    tree, where = _settings(config, overrides, run if resume else None)
    shared = make_config({key: value for key, value in tree.items() if key not in (*STUDY_KEYS, "base")}, where)
    # Not by the count of restarts: those who wait for a machine that comes back are started again uncounted.
    resume = resume or distributed.may_restart()
    with distributed.joined():
        console = Console(soft_wrap=True, markup=False, highlight=False, quiet=not distributed.is_main())
        if VARIANTS in tree:
            if checkpoint != "last":
                raise ConfigError(f"a study goes on with all its runs; name the one to take back to '{checkpoint}'.")
            with claimed(run, shared.output / shared.name, console.print) as folder:
                study = make_study(tree, folder, where)
                if foreign:
                    _refuse_plugins_of(study.runs, where, overrides)
                return _launch_study(study, console, resume, allow_changes)
        settings = make_config(tree, where)
        if foreign:
            _refuse_plugins_of([settings], where, overrides)
        result = run_training(settings, run, console, resume=resume, checkpoint=checkpoint, allow_changes=allow_changes)
        if distributed.is_main():
            _conclude(result, settings, console)
    return result.progress.stopped_by


def _settings(config: str | None, overrides: Sequence[str], resumed: Path | None) -> tuple[Tree, str]:
    """The merged settings, and where they come from."""
    if config is None and resumed is not None and resumed.is_dir():
        path = resumed / (STUDY if (resumed / STUDY).is_file() else CONFIG)
        tree = read_yaml(path) if path.name == STUDY else saved_settings(resumed)
        return merge(tree, parse_overrides(overrides), SPEC_PATHS), file_and_changes(path, overrides)
    if config is None and resumed is not None:
        raise ConfigError(f"there is no run '{resumed}' to go on with; to begin one there, name its configuration too.")
    name = config or DEFAULT_CONFIG
    return load_tree(name, overrides), file_and_changes(find_config(name), overrides)


def _refuse_plugins_of(runs: Iterable[RunConfig], where: str, overrides: Sequence[str]) -> None:
    """Settings that came with a folder import nothing, unless the command names it too."""
    named = parse_overrides(overrides).get("plugins") or ()
    for config in runs:
        refuse_plugins([module for module in config.plugins if module not in named], where)


def _launch_study(study: Study, console: Console, resume: bool, allow_changes: bool) -> int:
    from facelab.test_protocol.report.run_report import write_run_report

    if (study.folder / STUDY).is_file() and not resume:
        raise ConfigError(
            f"'{study.folder}' already holds a study; go on with it by --resume, or choose another folder."
        )
    distributed.barrier()
    try:
        stopped_by, reports = run_study(study, console, allow_changes=allow_changes)
    except FacelabError:
        if distributed.is_main() and {path.name for path in study.folder.iterdir()} <= {STUDY, LOCK}:
            (study.folder / STUDY).unlink(missing_ok=True)  # refused before anything came of it
        raise
    if stopped_by:
        console.print(f"stopped; go on with: facelab train --run {study.folder} --resume")
    elif distributed.is_main():
        console.rule(study.folder.name)
        sources = {name: trained_files(study.folder / name) for name in study.variants}
        shown = console if reports else None
        files = write_run_report(
            study.folder, reports, shown, sources, metrics=study.columns, details=False, draws=DRAWS
        )
        for what, path in {"study": study.folder, **files}.items():
            console.print(f"{what:>10}  {path}")
    return stopped_by


def _conclude(result: RunResult, config: RunConfig, console: Console) -> None:
    progress = result.progress
    if not progress.complete:
        console.print(
            f"stopped at update {progress.update} of {progress.total}; "
            f"go on with: facelab train --run {result.folder} --resume"
        )
        return
    from facelab.test_protocol.report.run_report import write_run_report

    if not result.reports:
        console.print("trained; nothing to test on: name protocols under evaluation.protocols")
    shown = console if result.reports else None
    sources = {config.name: trained_files(result.folder)}
    files = write_run_report(result.folder, {config.name: list(result.reports)}, shown, sources)
    for what, path in {"run": result.folder, **files}.items():
        console.print(f"{what:>10}  {path}")
