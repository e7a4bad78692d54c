"""The command line: ``facelab train | test | compare | embed | verify | list | show | cite | data`` and more."""

import io
import os
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from facelab.cli.align import align_command
from facelab.cli.compare import compare_command
from facelab.cli.cost import cost_command
from facelab.cli.data import data_app
from facelab.cli.draw import draw_command
from facelab.cli.embed import embed_command, verify_command
from facelab.cli.evaluate import evaluate_command
from facelab.cli.ijbs import ijbs_crops_command
from facelab.cli.iqa import iqa_app
from facelab.cli.models import export_adapter_command, export_command, import_command, merge_command
from facelab.cli.show import cite_command, list_command, show_command
from facelab.cli.synthetic import synthetic_command
from facelab.cli.train import train_command
from facelab.errors import FacelabError
from facelab.version import __version__

LONGEST = 2000  # letters of an error
OUT_OF_MEMORY = ("allocate", "out of memory", "Storage size")  # what torch says of memory in a RuntimeError


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"facelab {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="facelab",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app.command("align")(align_command)
data_app.command("ijbs-crops")(ijbs_crops_command)
data_app.command("synthetic")(synthetic_command)
# What a newcomer needs first stands first in the help.
app.command("train")(train_command)
app.command("test")(evaluate_command)
app.command("compare")(compare_command)
app.command("embed")(embed_command)
app.command("verify")(verify_command)
app.command("list")(list_command)
app.command("show")(show_command)
app.command("cite")(cite_command)
app.command("draw")(draw_command)
app.command("cost")(cost_command)
app.command("import")(import_command)
app.command("export")(export_command)
app.command("merge")(merge_command)
app.command("export-adapter")(export_adapter_command)
app.add_typer(data_app, name="data")
app.add_typer(iqa_app, name="iqa")


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Train, adapt and benchmark face recognition."""


def main() -> None:
    """Run the command line; an error that is the user's to mend ends with one sentence and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a letter, and a file's name be no text at all
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except FacelabError as error:
        _fail(str(error))
    except OSError as error:  # what no command expects: a full disk, a name of 5,000 letters, a folder without rights
        _fail(f"'{error.filename}': {error.strerror}." if error.filename else f"{error.strerror or error}.")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in OUT_OF_MEMORY):
            raise
        _fail(f"not enough memory ({str(error).splitlines()[0] if str(error) else 'of the process'}).")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str) -> NoReturn:
    where = f" (process {os.environ.get('RANK', '?')})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    if len(sentence) > LONGEST:
        sentence = f"{sentence[: LONGEST // 2]} … {sentence[-LONGEST // 2 :]}"
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in sentence)  # names may hold anything
    message = Text.assemble(("error", "bold red"), f"{where}: {shown}")  # in one piece: other processes write too
    Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(message)
    sys.exit(1)
