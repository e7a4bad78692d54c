"""Draws what TransFace's augmentation does: faces, the network's gate on them, and the patches that DPAP changes.

bash train.sh --config transface
python benchmarks/dpap_picture.py runs/transface --out dpap.png
"""

from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import facelab
from facelab.backbone.base import PatchGrid
from facelab.catalogue import build
from facelab.data.base import SOURCES
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.errors import ConfigError
from facelab.inputs import normalise
from facelab.training_mode.transface.dpap import Donors, perturb

NEW_PEOPLE = 100_000  # whom no run has drawn


def outline(axes: Axes, grid: PatchGrid, places: Tensor) -> None:
    """Frame some patches."""
    for place in places.tolist():
        corner = (grid.side * (place % grid.columns) - 0.5, grid.side * (place // grid.columns) - 0.5)
        axes.add_patch(Rectangle(corner, grid.side, grid.side, fill=False, edgecolor="yellow", linewidth=1.2))


def main(
    model: Annotated[str, typer.Argument(help="A trained network with a gate for its patches.")],
    people: Annotated[int, typer.Option(help="Faces, each of another person.")] = 6,
    patches: Annotated[int, typer.Option(help="K, how many patches are changed.")] = 7,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("dpap.png"),
) -> None:
    """Draw the picture."""
    loaded = facelab.load(model)
    network, grid = loaded.network, loaded.network.gated_patches
    if grid is None:
        raise ConfigError(f"'{model}' has no gate for its patches; train one, for example --config transface.")
    size = network.input_spec.height
    options = {"identities": people, "per_identity": 1, "first_identity": NEW_PEOPLE}
    source = build(SOURCES, {"SyntheticFaces": options}, size=size)
    image = torch.from_numpy(source.read_many(np.arange(people))).permute(0, 3, 1, 2)
    with torch.no_grad():
        gate = network.features(normalise(image, network.input_spec)).patch_gate
    assert gate is not None
    place = gate.topk(patches, dim=1).indices
    draw = Draws(draws_of_batch(0, 0, 0, np.arange(people)), "dpap")
    drawn = Donors.drawn(draw, people, grid, patches, 1.0, 1.0)
    whole = Donors(drawn.rows, drawn.image, drawn.patch, np.ones_like(drawn.share))
    rows = {
        "drawn": image,
        "gate": gate.view(-1, grid.rows, grid.columns),
        f"{patches} dominant patches": image,
        "DPAP": perturb(image, grid, place, drawn),
        "all of the\namplitude": perturb(image, grid, place, whole),
    }
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(1.25 * people + 0.8, 1.3 * len(rows)), layout="constrained")
        for axes_of_row, (name, shown) in zip(figure.subplots(len(rows), people), rows.items(), strict=True):
            for axes, one, places in zip(axes_of_row, shown, place, strict=True):
                axes.imshow(one if one.ndim == 2 else one.permute(1, 2, 0), cmap="magma", interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                if "patches" in name:
                    outline(axes, grid, places)
            axes_of_row[0].set_ylabel(name)
        figure.savefig(out, dpi=110)


if __name__ == "__main__":
    typer.run(main)
