"""The command line: ``facelab train | test | compare | embed | verify | list | show | cite | data`` and more."""

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from facelab.cli.align import align_command
from facelab.cli.compare import compare_command
from facelab.cli.cost import cost_command
from facelab.cli.data import data_app
from facelab.cli.draw import draw_command
from facelab.cli.evaluate import evaluate_command
from facelab.cli.ijbs import ijbs_crops_command
from facelab.cli.iqa import iqa_app
from facelab.cli.models import export_adapter_command, export_command, import_command, merge_command
from facelab.cli.names import config_or_setting
from facelab.cli.options import CheckpointOption, PluginOption
from facelab.cli.show import cite_command, list_command, show_command
from facelab.cli.synthetic import synthetic_command
from facelab.errors import FacelabError, in_range
from facelab.version import __version__

if TYPE_CHECKING:
    from facelab.quality.card import Quality

QualityOption = Annotated[
    str | None,
    typer.Option(
        metavar="TABLE|SCORER",
        help="Quality scores for adapted models: a table of `facelab iqa score`, or a scorer as '{Sharpness: {}}'; by "
        "default the scorer that the adapters were trained with.",
    ),
]

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
app.add_typer(data_app, name="data")
app.add_typer(iqa_app, name="iqa")
app.command("test")(evaluate_command)
app.command("compare")(compare_command)
app.command("draw")(draw_command)
app.command("cost")(cost_command)
app.command("import")(import_command)
app.command("merge")(merge_command)
app.command("export")(export_command)
app.command("export-adapter")(export_adapter_command)
app.command("list")(list_command)
app.command("show")(show_command)
app.command("cite")(cite_command)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Train, adapt and benchmark face recognition."""


@app.command("train")
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


@app.command("embed")
def embed_command(
    model: Annotated[str, typer.Argument(help="Folder of a run or of a checkpoint.")],
    images: Annotated[list[Path], typer.Argument(help="Aligned face images.")],
    out: Annotated[Path, typer.Option(help="Where to write the embeddings, an .npz file.")] = Path("embeddings.npz"),
    flip: Annotated[bool, typer.Option(help="Add the embedding of the mirrored image.")] = False,
    resize: Annotated[bool, typer.Option(help="Resize aligned faces of another size.")] = False,
    any_photo: Annotated[bool, typer.Option("--any-photo", help="With --resize: whatever shape they have.")] = False,
    quality: QualityOption = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Write the embeddings of face images, scaled to norm 1."""
    import numpy as np

    import facelab

    embeddings = facelab.load(model, checkpoint=checkpoint).embed(
        [str(path) for path in images], flip=flip, resize=resize, any_photo=any_photo, quality=_parsed(quality)
    )
    try:
        with out.open("wb") as file:
            np.savez(file, paths=np.array([str(path) for path in images]), embeddings=embeddings)
    except OSError as error:
        raise FacelabError(f"cannot write '{out}': {error.strerror}.") from None
    typer.echo(f"{len(images)} embeddings of length {embeddings.shape[1]} are in '{out}'.")


@app.command("verify")
def verify_command(
    first: Annotated[Path, typer.Argument(help="Aligned face image.")],
    second: Annotated[Path, typer.Argument(help="Aligned face image.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder of a run or of a checkpoint.")],
    threshold: Annotated[
        float | None, typer.Option(help="Similarity from which on two faces are the same person.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Use the mirrored images too.")] = False,
    resize: Annotated[bool, typer.Option(help="Resize aligned faces of another size.")] = False,
    any_photo: Annotated[bool, typer.Option("--any-photo", help="With --resize: whatever shape they have.")] = False,
    quality: QualityOption = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Say how similar two faces are."""
    import facelab

    if threshold is not None:
        in_range("--threshold", threshold, -1.0, 1.0)
    similarity = facelab.load(model, checkpoint=checkpoint).similarity(
        first, second, flip=flip, resize=resize, any_photo=any_photo, quality=_parsed(quality)
    )
    verdict = (
        ""
        if threshold is None
        else f"  {'same' if similarity >= threshold else 'different'} person at threshold {threshold:g}"
    )
    typer.echo(f"cosine similarity {similarity:.4f}{verdict}")


def _parsed(quality: str | None) -> "Quality | None":
    from facelab.model.given_quality import parse_quality

    return None if quality is None else parse_quality(quality, "--quality")


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
