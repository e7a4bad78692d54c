"""``facelab train``: train, evaluate and report."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from facelab.cli.commands import command
from facelab.cli.names import config_or_setting
from facelab.cli.options import PluginOption
from facelab.errors import ConfigError


class _Resuming(TyperCommand):
    """Lets ``--resume=step-8`` mean ``--resume step-8``, as an option that takes a value would."""

    def parse_args(self, context: Any, words: list[str]) -> list[str]:
        """Write the checkpoint behind the equals sign as an option of its own."""
        pairs = (("--resume", f"--checkpoint{word[8:]}") if word[:9] == "--resume=" else (word,) for word in words)
        return super().parse_args(context, [word for pair in pairs for word in pair])


@command("train", place=10, cls=_Resuming)
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
    checkpoint: Annotated[str | None, typer.Option("--checkpoint", hidden=True)] = None,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="Resume although settings differ.")] = False,
    plugins: PluginOption = None,
) -> None:
    """Train a model, evaluate it and write a report."""
    from facelab.run.launch import launch
    from facelab.weights.checkpoint import is_checkpoint_name

    words = list(arguments or [])
    if checkpoint is not None and not is_checkpoint_name(checkpoint):
        raise ConfigError(f"--resume={checkpoint} names no checkpoint; write last, best or step-<update>.")
    which = checkpoint or next((word for word in words if resume and is_checkpoint_name(word)), None)
    if which in words:
        words.remove(which)
    config = words.pop(0) if words and "=" not in words[0] else None
    stopped_by = launch(config, words, run=run, resume=resume, checkpoint=which or "last", allow_changes=allow_changes)
    if stopped_by:
        raise typer.Exit(128 + stopped_by)  # as shells say that a signal ended it
