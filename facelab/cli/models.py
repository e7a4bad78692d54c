"""``facelab import``, ``merge`` and ``export-adapter``: models from elsewhere, and adapted ones in other forms."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facelab.cli.commands import command
from facelab.cli.options import CheckpointOption, PluginOption, writable
from facelab.errors import ConfigError, DataError
from facelab.weights.published_source import SOURCES, published_network
from facelab.weights.state_fit import named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor

    from facelab.adapter.base import AdaptedBackbone
    from facelab.backbone.base import Backbone
    from facelab.model.face_model import FaceModel

MERGED_APART = 1e-2  # rounding in fp32 gives 1e-6, and up to 1e-3 in the deepest networks

RunArgument = Annotated[str, typer.Argument(help="Folder of an adapted run or checkpoint.")]


def _no_source(file: str) -> str:
    """Answers ``facelab import petalface FILE``, where the source stands in the place of the file."""
    if file in SOURCES and not Path(file).exists():
        raise ConfigError(
            f"'{file}' is a source and no file; name it behind the file, with the network: "
            f"facelab import FILE --as {file}:NAME --out FOLDER."
        )
    return file


@command("import", place=110)
def import_command(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A file, or hf://OWNER/REPOSITORY/NAME.", callback=_no_source, is_eager=True
        ),
    ],
    address: Annotated[
        str,
        typer.Option("--as", metavar="SOURCE:NAME", help=f"Whose network, and its name there: {', '.join(SOURCES)}."),
    ],
    out: Annotated[
        Path, typer.Option(help="The new folder; facelab test, train and load take it.", callback=writable("new"))
    ],
    rank: Annotated[int | None, typer.Option(help="Rank of the adapters of a petalface file, to be sure.")] = None,
    scale: Annotated[
        float | None, typer.Option(help="--lora_scale that a petalface file was trained with; 1 by default.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="Threshold of the gate of a petalface file; 0.5 by default.")
    ] = None,
) -> None:
    """Make a model folder of weights that another project released, e.g. --as facexzoo:ResNet152_ir_se."""
    from facelab.adapter.petalface import import_petalface
    from facelab.backbone.names.import_names import import_backbone, unused_names
    from facelab.weights.model_folder import write_model
    from facelab.weights.published_file import read_state

    source, spec = published_network(address)
    if not source.adapters and (rank, scale, tau) != (None, None, None):
        raise ConfigError(f"'{address}' has no adapters; --rank, --scale and --tau are for files of petalface.")
    state, head = source.separate(read_state(file), file)
    if source.adapters:
        scale, tau = 1.0 if scale is None else scale, 0.5 if tau is None else tau
        network, card = import_petalface(spec, state, file, rank=rank, scale=scale, tau=tau)
        unused: list[str] = []
    else:
        network, card = import_backbone(spec, state, file)
        unused = unused_names(network, state)
    write_model(out, network.state_dict(), {**card, "imported": {"as": address, "file": file}})
    typer.echo(f"{len(state)} tensors of '{file}' are a model in '{out}': {network.input_spec.describe()}.")
    if left_out := list(filter(None, (named("of the head", head), named("that nothing reads", unused)))):
        typer.echo(f"Left out: {', '.join(left_out)}.")


@command("merge", place=130)
def merge_command(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The new folder.", callback=writable("new"))],
    gate: Annotated[
        float | None, typer.Option(help="Gate that all images get, 0 low to 1 high quality; needed for two experts.")
    ] = None,
    quality: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Instead of --gate: quality scores; the mean of their gates.")
    ] = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Make an ordinary model of an adapted one: adapters go into dense weights, at one gate for all images."""
    from facelab.weights.model_folder import write_model

    model, adapted = _adapted(run, checkpoint)
    if quality is not None:
        if gate is not None:
            raise ConfigError("--gate and --quality both say at which gate to merge; give one of them.")
        gate = _mean_gate(adapted, quality)
    if adapted.gate is not None and gate is None:
        raise ConfigError(
            f"'{run}' weighs its experts by quality; say for which gate to merge them, e.g. --gate 0.5, or --quality "
            "TABLE for the mean gate of some images."
        )
    length, spaces = adapted.embedding_dim, adapted.joined
    expected = _one_embedding(adapted, gate)
    merged = adapted.merged(0.5 if gate is None else gate)
    ours = (
        *("adapter", "gate", "base_hash", "embedding_dim", "adapter_parameters", "trained_parameters", "scorer"),
        "calibration",  # of other weights
    )
    card = {key: value for key, value in model.card.items() if key not in ours}
    _require_equal(_ordinary(card, merged, run), expected, run)
    write_model(out, merged.state_dict(), {**card, "merged": {"from": run, "gate": gate}})
    typer.echo(f"'{out}' is an ordinary model of {card['parameters']:,} parameters.")
    if spaces:
        shorter = f" instead of {length}" if length != merged.embedding_dim else ""
        typer.echo(
            f"Its embedding has {merged.embedding_dim} numbers{shorter}: the two spaces are joined no more, "
            "all images are compared at this gate."
        )


def _one_embedding(adapted: "AdaptedBackbone", gate: float | None) -> "Tensor":
    """The embedding of one image of noise, (1, D), at a gate."""
    import torch

    with torch.no_grad():
        return adapted.with_gate(_noise(adapted), None if gate is None else torch.full((1,), gate))


def _noise(network: "Backbone") -> "Tensor":
    """A normalised image of noise, the same each time, (1, 3, H, W)."""
    import torch

    return torch.rand(1, 3, *network.input_spec.size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _ordinary(card: "Mapping[str, Any]", merged: "Backbone", where: str) -> "Backbone":
    """The network as the card without adapters describes it, with merged weights: what whoever loads it will get."""
    from facelab.model.stored_model import model_from_card

    return model_from_card(card, merged.state_dict(), where).eval()


def _require_equal(network: "Backbone", expected: "Tensor", run: str) -> None:
    """Refuse a merged network that embeds otherwise than the adapted one did, as one from elsewhere may."""
    import torch

    with torch.no_grad():
        apart = float((network(_noise(network)) - expected).norm() / expected.norm())
    if not apart < MERGED_APART:  # so that NaN is refused too
        raise ConfigError(
            f"the adapter of '{run}' cannot be merged: an ordinary model with its weights gives embeddings that are "
            f"{100 * apart:.2g} % away from those of the adapted one. Use the adapted model as it is."
        )


def _mean_gate(adapted: "AdaptedBackbone", table: Path) -> float:
    """Mean gate of the images of a score table."""
    import numpy as np
    import torch

    from facelab.backbone.base import check_scorer
    from facelab.quality.table import ScoreTable

    if adapted.gate is None:
        raise ConfigError("--quality is for models that weigh experts by quality; this one has no gate, leave it out.")
    scores = ScoreTable(table)
    check_scorer(adapted, scores.scorer, f"the quality table '{table}'")
    values = torch.from_numpy(scores.values[np.isfinite(scores.values)])
    if not len(values):
        raise DataError(f"the quality table '{table}' has no score, so its images have no gate.")
    with torch.no_grad():
        return float(adapted.gate(values).mean())


@command("export-adapter", place=140)
def export_adapter_command(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The new .safetensors file, or a folder with --peft.")],
    peft: Annotated[bool, typer.Option("--peft", help="Plain LoRA in the format of Hugging Face PEFT.")] = False,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Write the adapters of a run without their base: a few megabytes that fit that base alone."""
    from facelab.adapter.files import save_adapter
    from facelab.adapter.peft_format import save_peft
    from facelab.weights.whole_file import require_writable

    require_writable(out, "folder" if peft else "file")
    model, adapted = _adapted(run, checkpoint)
    if peft:
        save_peft(out, adapted)
    else:
        save_adapter(out, adapted, model.card["adapter"], model.card.get("gate"), model.card.get("scorer"))
    numbers = sum(tensor.numel() for tensor in adapted.own_state().values())
    typer.echo(f"{numbers:,} parameters of adapters are in '{out}'; base {adapted.base_hash}.")


def _adapted(run: str, checkpoint: str) -> "tuple[FaceModel, AdaptedBackbone]":
    from facelab.adapter.base import AdaptedBackbone
    from facelab.model.face_model import load_model

    model = load_model(run, checkpoint=checkpoint, device="cpu")
    if not isinstance(model.network, AdaptedBackbone):
        raise ConfigError(f"'{run}' has no adapters.")
    return model, model.network
