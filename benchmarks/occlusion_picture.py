"""Draws what training against occlusion sees: faces, what hides them, the masks, what the network takes for hidden.

bash train.sh --config occlusion
python benchmarks/occlusion_picture.py runs/occlusion --out occlusion.png
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from facelab.catalogue import build
from facelab.data.base import SOURCES, Batch
from facelab.data.transforms.augment import Augment
from facelab.errors import ConfigError
from facelab.run.assembly import assemble, restore
from facelab.run.run import saved_settings
from facelab.run.settings import make_config
from facelab.training_mode.occlusion import Occlusion
from facelab.weights.checkpoint import CheckpointStore

NEW_PEOPLE = 100_000  # whom no run has drawn
SEED = 3


def trained_mode(run: Path) -> Occlusion:
    """The mode of a run as its last checkpoint has it.

    Raises:
        ConfigError: If it is another mode, or one without a segmentation.
    """
    parts = assemble(make_config(saved_settings(run), f"'{run}'"), resumed=True)
    if not isinstance(parts.mode, Occlusion) or parts.mode.segment is None:
        raise ConfigError(f"'{run}' has no segmentation; train one, for example --config occlusion.")
    restore(parts, CheckpointStore(run / "checkpoints").find("last"))
    for network in parts.mode.networks().values():
        network.eval()
    return parts.mode


@torch.no_grad()
def looked_at(mode: Occlusion, batch: Batch) -> tuple[Tensor, Tensor]:
    """How surely each cell is hidden, and which cells of the clean face the generator drops, (B, H, W) each."""
    assert mode.segment is not None
    assert batch.reference is not None
    with mode.place.passing() as seen:
        mode.network.features(*mode.inputs(batch))
        mode.network.features(*mode.inputs(replace(batch, image=batch.reference)))
    return mode.segment.network(seen[0]).sigmoid()[:, 0], mode._drop(batch, seen[1])[:, 0]


def main(
    run: Annotated[Path, typer.Argument(help="A run of the mode occlusion.")],
    people: Annotated[int, typer.Option(help="Faces, each of another person.")] = 8,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("occlusion.png"),
) -> None:
    """Draw the picture."""
    mode = trained_mode(run)
    mode.probability = 1.0
    options = {"identities": people, "per_identity": 1, "first_identity": NEW_PEOPLE}
    source = build(SOURCES, {"SyntheticFaces": options}, size=mode.network.input_spec.height)
    image = torch.from_numpy(source.read_many(np.arange(people))).permute(0, 3, 1, 2)
    number = torch.arange(people)
    augment = Augment({"occlude": {"probability": 1.0}}, SEED)
    batch = augment(Batch(image, number, number), 0, 0, view="clean", occluded=True)
    assert batch.occluded is not None
    told, dropped = looked_at(mode, batch)
    rows = {
        "drawn": image,
        "hidden": batch.image,
        "mask": batch.occluded[:, 0],
        "predicted": told,
        "dropped": dropped,
    }
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(1.25 * people + 0.6, 1.3 * len(rows)), layout="constrained")
        for axes_of_row, (name, shown) in zip(figure.subplots(len(rows), people), rows.items(), strict=True):
            for axes, one in zip(axes_of_row, shown, strict=True):
                picture = one.float() if one.ndim == 2 else one.permute(1, 2, 0)
                axes.imshow(picture, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
            axes_of_row[0].set_ylabel(name)
        figure.savefig(out, dpi=110)


if __name__ == "__main__":
    typer.run(main)
