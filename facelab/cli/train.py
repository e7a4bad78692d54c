"""``facelab train``: train, evaluate and report."""

from pathlib import Path
from typing import Annotated

import typer

from facelab.cli.commands import command
from facelab.cli.names import config_or_setting
from facelab.cli.options import PluginOption


@command("train", place=10)
def train_command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help="A YAML file or a shipped configuration, then overrides; with --resume a checkpoint may stand among "
            "them.",
            autocompletion=config_or_setting,
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; a new one below `output` by default.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --run from its last checkpoint, or from best or step-<update>.")
    ] = False,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="Resume although settings differ.")] = False,
    plugins: PluginOption = None,
) -> None:
    """Train a model, evaluate it and write a report."""
    from facelab.run.launch import launch
    from facelab.weights.checkpoint import is_checkpoint_name

    words = list(arguments or [])
    which = next((word for word in words if resume and is_checkpoint_name(word)), None)
    if which is not None:
        words.remove(which)
    config = words.pop(0) if words and "=" not in words[0] else None
    stopped_by = launch(config, words, run=run, resume=resume, checkpoint=which or "last", allow_changes=allow_changes)
    if stopped_by:
        raise typer.Exit(128 + stopped_by)
