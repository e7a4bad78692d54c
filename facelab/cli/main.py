"""The command line ``facelab``; `facelab.cli.commands` says which commands there are."""

import io
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from facelab.cli.commands import add_commands
from facelab.errors import FacelabError, printable
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
add_commands(app)


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
        _fail(str(error), again=type(error) is not FacelabError)
    except OSError as error:  # what no command expects: a full disk, a name of 5,000 letters, a folder without rights
        _fail(f"'{error.filename}': {error.strerror}." if error.filename else f"{error.strerror or error}.")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in OUT_OF_MEMORY):
            raise
        _fail(f"not enough memory ({str(error).splitlines()[0] if str(error) else 'of the process'}).")
    except KeyboardInterrupt:
        sys.exit(130)  # as shells say it: 128 and the number of the signal


def _fail(sentence: str, again: bool = False) -> NoReturn:
    """End with a sentence; ``again`` says that the same would come if torchrun started this process once more."""
    where = f" (process {os.environ.get('RANK', '?')})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    if len(sentence) > LONGEST:
        sentence = f"{sentence[: LONGEST // 2]} … {sentence[-LONGEST // 2 :]}"
    message = Text.assemble(
        ("error", "bold red"), f"{where}: {printable(sentence)}"
    )  # in one piece: other processes write too
    Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(message)
    launcher = int(os.environ.get("FACELAB_LAUNCHER", "0"))
    if again and launcher == os.getppid() and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        os.kill(launcher, signal.SIGUSR1)  # see `facelab.launch`
    sys.exit(1)
