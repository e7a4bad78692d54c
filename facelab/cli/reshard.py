"""``facelab reshard``: rewrite a run's checkpoint for another number of processes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from facelab.cli.commands import command
from facelab.cli.options import CheckpointOption


@command("reshard", place=15)
def reshard_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run that stands still.")],
    to: Annotated[int, typer.Option("--to", metavar="N", min=1, help="Processes that will go on with it.")],
    checkpoint: CheckpointOption = "last",
) -> None:
    """Share the class rows in a checkpoint out to N files, one for each process.

    A run goes on with any number of processes without this, each reading its rows from all files; here each finds them
    in one. Nothing is gathered in memory, and a kill leaves the checkpoint as it was or as it is to be.
    """
    from facelab.run.run_folder import claimed
    from facelab.weights.checkpoint import CheckpointStore
    from facelab.weights.class_rows import process_files
    from facelab.weights.reshard import reshard

    console = Console(markup=False, highlight=False)
    store = CheckpointStore(run / "checkpoints")
    store.find(checkpoint)  # before the folder is claimed, which makes one that is missing
    with claimed(run, run, console.print):
        found = store.find(checkpoint)
        store.require_unharmed(found)
        former = len(process_files(found))
        reshard(found, to)
    console.print(f"'{found}' was of {former}, is of {to} process{'es' if to > 1 else ''}.", soft_wrap=True)
