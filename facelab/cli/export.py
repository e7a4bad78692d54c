"""``facelab export``: a model on its own, for facelab or for programs without it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from facelab.cli.commands import command
from facelab.cli.names import protocol
from facelab.cli.options import CheckpointOption, PluginOption, writable
from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.data.base import ImageSet
    from facelab.export.export import Exported, ExportOptions
    from facelab.model.face_model import FaceModel
    from facelab.run.model_evaluation import Protocols

To = Literal["facelab", "onnx", "torchscript", "openvino"]
Precision = Literal["fp32", "fp16", "int8"]
Preprocessing = Literal["outside", "inside"]


@command("export", place=120)
def export_command(
    run: Annotated[str, typer.Argument(help="Folder of a run or checkpoint, or a model.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The new folder or .safetensors file; or a file ending in .onnx, .pt or .xml.",
            callback=writable("new"),
        ),
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
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROTOCOL.OPTION=VALUE",
            help="Test model and file on a protocol, as in facelab test, and show the difference; may be repeated.",
            autocompletion=protocol,
        ),
    ] = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Write the model of a run without what only training needs, for facelab or for programs without it."""
    from facelab.cli.protocols import open_protocols
    from facelab.export.export import ExportOptions
    from facelab.model.face_model import load_model

    model = load_model(run, checkpoint=checkpoint, device="cpu")
    if to != "facelab":
        console = Console(soft_wrap=True, markup=False, highlight=False)
        protocols = open_protocols(check, [], [model], console) if check else []  # refused before the work
        options = ExportOptions(to, precision, preprocessing, flip, least_cosine)
        _tell(_exported(model, out, options, calibrate), to, model, console)
        if protocols:
            _compare(model, out, options, protocols, console)
        return
    if (precision, preprocessing, flip, calibrate, least_cosine, check) != ("fp32", "outside", False, None, None, None):
        raise ConfigError(
            "--precision, --preprocessing, --flip, --calibrate, --least-cosine and --check are for other programs: say "
            "which by --to onnx."
        )
    model.save(out)
    typer.echo(f"'{out}' is a model: {model.input_spec.describe()}, embeddings of {model.feat_dim} numbers.")


def _exported(model: "FaceModel", out: Path, options: "ExportOptions", calibrate: str | None) -> "Exported":
    from facelab.export.export import export_model

    if calibrate is None:
        return export_model(model, out, options)
    return export_model(model, out, options, _faces(calibrate), calibrate)


def _faces(named: str) -> "ImageSet":
    """The images of a folder that holds some, as `facelab data align` leaves them, or of any other source."""
    from facelab.cli.data import opened_source
    from facelab.data.formats.files import is_image_name
    from facelab.data.formats.images import PathImages

    folder = Path(named)
    if folder.is_dir() and (names := sorted(path.name for path in folder.iterdir() if is_image_name(path.name))):
        return PathImages(folder, names)
    return opened_source(named, None, None)


def _tell(exported: "Exported", to: str, model: "FaceModel", console: Console) -> None:
    record = exported.record
    for note in (*record.inputs, *record.outputs):
        console.print(f"{note.name:>10}  {note.dtype} {_shape(note.shape)}: {note.meaning}")
    console.print(f"{'parity':>10}  {exported.parity.describe()}")
    if model.calibration is not None and record.calibration is None:
        console.print("Its thresholds were left out: they hold for another precision, or for mirrored faces or none.")
    said = f"'{exported.path}' is a model for {to} in {record.precision}; '{exported.note}' says all of this too."
    console.print(said)


def _compare(model: "FaceModel", out: Path, options: "ExportOptions", protocols: "Protocols", console: Console) -> None:
    """Test the model and its file, and print what differs."""
    from facelab.export.export import opened_export
    from facelab.export.protocol_difference import differences
    from facelab.run.model_evaluation import EvaluationOptions, evaluate_models

    exported = opened_export(out, options.format, model)
    reports = evaluate_models([model, exported], protocols, {}, EvaluationOptions(), console)
    for before, after in zip(*reports.values(), strict=True):
        for difference in differences(before, after):
            console.print(f"{before.protocol:>10}  {difference.describe()}")


def _shape(axes: list[int | str]) -> str:
    return f"({', '.join(map(str, axes))})"
