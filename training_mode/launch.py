"""What ``facelab train`` does around a run: processes, folder, greeting, result table, report."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from facelab import distributed
from facelab.checkpoint import CheckpointStore
from facelab.config import merge, parse_overrides, read_yaml
from facelab.errors import ConfigError
from facelab.tracking import model_files
from facelab.training_mode.run import RunResult, new_run_folder, run_training, saved_config
from facelab.training_mode.settings import SPEC_PATHS, RunConfig, load_config, make_config

DEFAULT_CONFIG = "conventional"


def launch(
    config: str | None,
    overrides: Sequence[str],
    *,
    run: Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
) -> int:
    """Train by the command line's words.

    Args:
        config: A YAML file or a shipped configuration; None takes that of the run to resume, else the default.
        overrides: ``key=value`` pairs.
        run: Folder of the run; None makes a new one.
        resume: Go on from the run's last checkpoint.
        allow_changes: Resume although settings differ.

    Returns:
        0, or the number of the signal that stopped training.

    Raises:
        FacelabError: For everything that is the user's to mend.
    """
    if resume and run is None:
        raise ConfigError("--resume needs --run FOLDER, the run to go on with.")
    settings = _settings(config, overrides, run if resume else None)
    distributed.initialise()
    try:
        folder = run or new_run_folder(settings)
        console = Console(soft_wrap=True, quiet=not distributed.is_main())
        result = run_training(settings, folder, console, resume=resume, allow_changes=allow_changes)
        if distributed.is_main():
            _conclude(result, settings, console)
    finally:
        distributed.shutdown()
    return result.progress.stopped_by


def _settings(config: str | None, overrides: Sequence[str], resumed: Path | None) -> RunConfig:
    if config is None and resumed is not None and resumed.is_dir():
        path = saved_config(resumed)
        return make_config(merge(read_yaml(path), parse_overrides(overrides), SPEC_PATHS), f"'{path}'")
    return load_config(config or DEFAULT_CONFIG, list(overrides))


def _conclude(result: RunResult, config: RunConfig, console: Console) -> None:
    progress = result.progress
    if not progress.complete:
        console.print(
            f"stopped at update {progress.update} of {progress.total}; "
            f"go on with: facelab train --run {result.folder} --resume"
        )
        return
    from facelab.test_protocol.run_report import write_run_report

    if not result.reports:
        console.print("trained; nothing to test on: name protocols under evaluation.protocols")
    shown = console if result.reports else None
    last = CheckpointStore(result.folder / "checkpoints").index()["last"]
    sources = {config.name: model_files(result.folder / "checkpoints" / last if last else None)}
    files = write_run_report(result.folder, {config.name: list(result.reports)}, shown, sources)
    for what, path in {"run": result.folder, **files}.items():
        console.print(f"{what:>10}  {path}")
