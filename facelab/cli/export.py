"""``facelab export``: a model on its own, for facelab or for programs without it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from facelab.cli.commands import command
from facelab.cli.options import CheckpointOption, PluginOption
from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.model.face_model import FaceModel

To = Literal["facelab", "onnx", "torchscript", "openvino"]
Precision = Literal["fp32", "fp16", "int8"]
Preprocessing = Literal["outside", "inside"]


@command("export", place=120)
def export_command(
    run: Annotated[str, typer.Argument(help="Folder of a run or checkpoint, or a model.")],
    out: Annotated[
        Path, typer.Option(help="The new folder or .safetensors file; or a file ending in .onnx, .pt or .xml.")
    ],
    to: Annotated[To, typer.Option(help="Who reads it: facelab itself, or programs without it.")] = "facelab",
    precision: Annotated[
        Precision, typer.Option(help="Of weights and products; int8 is calibrated on faces.")
    ] = "fp32",
    preprocessing: Annotated[
        Preprocessing,
        typer.Option(help="inside: the graph takes uint8 RGB (n, h, w, 3); outside: normalised (n, 3, h, w)."),
    ] = "outside",
    flip: Annotated[bool, typer.Option(help="The graph adds the embedding of the mirrored face.")] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Aligned faces for int8 and for the comparison with the model: a folder or archive of people, a list, "
            "a .rec file. By default drawn faces.",
        ),
    ] = None,
    least_cosine: Annotated[
        float | None, typer.Option(help="Cosine between embeddings before and after that no face may fall below.")
    ] = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Write the model of a run without what only training needs, for facelab or for programs without it."""
    from facelab.model.face_model import load_model

    model = load_model(run, checkpoint=checkpoint, device="cpu")
    if to != "facelab":
        _export_file(model, out, to, precision, preprocessing, flip, calibrate, least_cosine)
        return
    if (precision, preprocessing, flip, calibrate, least_cosine) != ("fp32", "outside", False, None, None):
        raise ConfigError(
            "--precision, --preprocessing, --flip, --calibrate and --least-cosine are for other programs: say which by "
            "--to onnx."
        )
    model.save(out)
    typer.echo(f"'{out}' is a model: {model.input_spec.describe()}, embeddings of {model.feat_dim} numbers.")


def _export_file(
    model: "FaceModel",
    out: Path,
    to: str,
    precision: Precision,
    preprocessing: Preprocessing,
    flip: bool,
    calibrate: str | None,
    least_cosine: float | None,
) -> None:
    from facelab.cli.data import opened_source
    from facelab.export.export import ExportOptions, export_model

    console = Console(soft_wrap=True, markup=False, highlight=False)
    options = ExportOptions(to, precision, preprocessing, flip, least_cosine)
    source = None if calibrate is None else opened_source(calibrate, None, None)
    exported = export_model(model, out, options, source, "drawn faces" if calibrate is None else calibrate)
    record = exported.record
    for note in (*record.inputs, *record.outputs):
        console.print(f"{note.name:>10}  {note.dtype} {_shape(note.shape)}: {note.meaning}")
    console.print(f"{'parity':>10}  {exported.parity.describe()}")
    console.print(f"'{out}' is a model for {to} in {precision}; what it takes and gives stands in '{out}.json' too.")


def _shape(axes: list[int | str]) -> str:
    return f"({', '.join(map(str, axes))})"
