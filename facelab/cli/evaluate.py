"""``facelab test``: models on protocols, one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from facelab.cli.commands import command
from facelab.cli.names import complete_names, complete_words, protocol
from facelab.cli.options import AnyPhotoOption, BackendOption, DeviceOption, PluginOption, ResizeOption, writable
from facelab.cli.protocols import open_protocols, quality_tables
from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.model.face_model import FaceModel

Precision = Literal["fp32", "bf16", "fp16"]
OnCorrupt = Literal["error", "zero", "skip"]


@command("test", place=20)
def evaluate_command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... [PROTOCOL.OPTION=VALUE]...",
            help="Folders of runs or checkpoints; then protocols, for example LFW.root=lfw112.tar LFW.pairs=pairs.txt, "
            "or data_root=FOLDER for every test set that lies there, with options for single ones (LFW.flip=true, "
            "IJB-C=null to leave it out). Without a protocol, those of the run's own configuration.",
            autocompletion=protocol,
        ),
    ],
    checkpoint: Annotated[
        str, typer.Option(help="last, best, all or step-<update>", autocompletion=complete_words("last", "best", "all"))
    ] = "last",
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Test a backbone of the catalogue instead of a run, with --weights.",
            autocompletion=complete_names("backbones"),
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A safetensors file for --backbone.")] = None,
    concat: Annotated[
        bool, typer.Option("--concat", help="Test too what all models are together, their embeddings side by side.")
    ] = False,
    precision: Annotated[Precision, typer.Option(help="Number format of the network.")] = "fp32",
    batch_size: Annotated[int, typer.Option(help="Images in a forward pass.")] = 64,
    resize: ResizeOption = False,
    any_photo: AnyPhotoOption = False,
    device: DeviceOption = "auto",
    backend: BackendOption = "torch",
    plugins: PluginOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps embeddings; what was stopped goes on from there."),
    ] = None,
    on_corrupt: Annotated[
        OnCorrupt,
        typer.Option(help="What becomes of images that cannot be read: error, zero (embeddings of zeros) or skip."),
    ] = "error",
    quality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PROTOCOL=]TABLE",
            help="Quality scores for a protocol, or for all: a table, or a scorer as '{Sharpness: {}}', which scores "
            "each set once; may be repeated. Models that were adapted with a scorer take that one by default.",
        ),
    ] = None,
    bootstrap: Annotated[
        int,
        typer.Option(
            help="Draws for confidence intervals by identity, for example 1000; 0 for none.", min=0, max=1_000_000
        ),
    ] = 0,
    draws: Annotated[
        int,
        typer.Option(
            help="Of several models: bootstrap draws of the tests that mark what is within noise; 0 for no tests.",
            min=0,
            max=1_000_000,
        ),
    ] = 1000,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report; below the first model by default, or beside its file.",
            callback=writable("folder"),
        ),
    ] = None,
) -> None:
    """Test models on protocols; prints one table and writes the report."""
    from facelab import distributed
    from facelab.inputs import check_any_photo
    from facelab.model.joined import joined_model
    from facelab.run.model_evaluation import EvaluationOptions, evaluate_models, write_evaluation
    from facelab.weights.whole_file import require_writable

    check_any_photo(any_photo, resize)
    options = EvaluationOptions(precision, batch_size, cache, resize, any_photo, on_corrupt)
    names, chosen = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    with distributed.joined():
        console = Console(soft_wrap=True, markup=False, highlight=False, quiet=not distributed.is_main())
        where = "cpu" if (device, backend) == ("auto", "onnxruntime") else device
        models = open_models(names, checkpoint, backbone, weights, where)
        folder = out or _report_folder(names, models)
        distributed.together(lambda: require_writable(folder, "folder") if distributed.is_main() else None)
        if backend == "onnxruntime":
            models = computed_by_onnxruntime(models)
        if concat:
            models.append(joined_model(models))
        protocols = open_protocols(chosen, names, models, console)
        sources = quality_tables(quality or [], [name for name, _ in protocols], [] if chosen else names)
        reports = evaluate_models(models, protocols, sources, options, console)
        written = write_evaluation(folder, models, reports, console, bootstrap=bootstrap, draws=draws)
        for what, path in written.items():
            console.print(f"{what:>10}  {path}")


def _report_folder(names: Sequence[str], models: Sequence["FaceModel"]) -> Path:
    """Where a report goes unless it is told: below the first model, beside its file, or among the runs."""
    if not names:
        return Path("runs") / f"test-{models[0].name}"
    first = Path(names[0])
    return first.with_name(f"{first.stem}-test") if first.is_file() else first / "test"


def computed_by_onnxruntime(models: Sequence["FaceModel"]) -> list["FaceModel"]:
    """The same models in onnxruntime; the main process exports what is not kept yet, the others wait for it.

    Raises:
        ConfigError: If one cannot be exported, or is on a GPU.
        DataError: If its embeddings differ there.
    """
    from facelab import distributed
    from facelab.export.backend import through_onnxruntime

    found: list[FaceModel] = []
    if distributed.is_main():  # and the others find what it kept
        distributed.together(lambda: found.extend(map(through_onnxruntime, models)))
    else:
        distributed.together(lambda: None)
        found.extend(map(through_onnxruntime, models))
    return found


def open_models(
    names: Sequence[str], checkpoint: str, backbone: str | None, weights: Path | None, device: str
) -> list["FaceModel"]:
    """The models that a command line names: runs, and a backbone with its weights.

    Raises:
        ConfigError: If none is named, or only one of ``backbone`` and ``weights``.
        CheckpointError: If one cannot be loaded.
    """
    from facelab.model.face_model import load_backbone, load_model
    from facelab.weights.checkpoint import CheckpointStore

    if (backbone is None) != (weights is None):
        raise ConfigError("--backbone and --weights go together.")
    models = [] if backbone is None or weights is None else [load_backbone(backbone, weights, device=device)]
    for name in names:
        stored = CheckpointStore(Path(name) / "checkpoints")
        which = stored.names() if checkpoint == "all" and stored.folder.is_dir() else [checkpoint]
        for one in which:
            shown = Path(name).name if len(which) == 1 else f"{Path(name).name} {one}"
            models.append(load_model(name, checkpoint=one, device=device, name=shown))
    if not models:
        raise ConfigError("name a run to test, or --backbone with --weights.")
    return models
