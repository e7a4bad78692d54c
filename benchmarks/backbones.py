"""How well do families of networks separate people at about equal cost and after equally few updates?

The table of FaceX-Zoo's section 3.1: every family of backbones, narrow enough for 13 to 40 million multiply-accumulates
at 64 px, with the head of that table, some seeds each. Every run has a folder, as in `heads`.

    python benchmarks/backbones.py --seeds 3 --steps 200
    python benchmarks/backbones.py --only RepVGG --only Swin
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from heads import rescaled
from zoo_runs import SIZE, DataName, Precision, Seeds, Shared, Steps, Threads, open_faces, run_rows

from facelab.backbone.base import BACKBONES
from facelab.config import Tree
from facelab.errors import one_of

HEAD = "MV-Softmax"
FEAT_DIM = 128
NARROW: dict[str, dict[str, Any]] = {
    "AttentionNet": {"width": 0.125},
    "EfficientNet": {"width": 0.25},
    "GhostNet": {"width": 0.5},
    "HRNet": {"width": 0.125},
    "IResNet": {"depth": 50, "width": 0.125},
    "LightCNN": {"depth": 29, "width": 0.125},
    "MobileFaceNet": {"width": 0.5},
    "ReXNet": {"width": 0.25},
    "RepVGG": {"depths": [2, 4, 14, 1], "widths": [0.125, 0.125, 0.125, 0.25]},
    "ResNeSt": {"width": 0.125},
    "Swin": {"patch": 4, "dim": 32, "depths": [2, 2, 2], "heads": [2, 4, 8], "window": 4},
    "TF-NAS-A": {"width": 0.25},
    "Timm": {"model": "edgenext_xx_small"},
    "VarGFaceNet": {"width": 0.25},
    "ViT": {"patch": 8, "dim": 64, "depth": 6, "heads": 4},
}
"""Options of each family beside its defaults; nothing is dropped at random, because runs are too short to overfit."""
INPUT = {"height": SIZE, "width": SIZE, "colour": "RGB", "mean": 127.5, "std": 127.5}
TRANSFORMERS = ("Swin", "ViT")
ADAMW: Tree = {"optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05}}
"""What transformers are trained with everywhere; with SGD they would hardly move."""


def backbone_rows(names: Sequence[str]) -> dict[str, Tree]:
    """What each family changes in the settings of a run.

    Args:
        names: Registered backbones.

    Raises:
        ConfigError: If the study does not know a family.
    """
    return {
        name: {"backbone": {name: narrow_options(name)}, **(ADAMW if name in TRANSFORMERS else {})} for name in names
    }


def narrow_options(name: str) -> dict[str, Any]:
    """Options of a family in this study, over those of a catalogue entry of its name."""
    options = NARROW[one_of("backbone", name, list(NARROW))]
    never = {key: 0.0 for key in ("drop_rate", "drop_path_rate") if key in BACKBONES.parameters(name)}
    return {"feat_dim": FEAT_DIM, "input_spec": INPUT, **never, **options}


def main(
    seeds: Seeds = 3,
    steps: Steps = 200,
    only: Annotated[list[str] | None, typer.Option(help="Family; repeatable. All families.")] = None,
    data: DataName = "synthetic",
    shared: Shared = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs and tables are written.")] = Path("runs/backbones"),
    precision: Precision = "fp32",
    threads: Threads = 2,
) -> None:
    """Train what is not finished, then write and print the table of everything that is."""
    rows = backbone_rows(only or BACKBONES.names())
    faces, common = open_faces(data, shared, out), {"head": {HEAD: rescaled(HEAD)}}
    run_rows(rows, common, faces, seeds=seeds, steps=steps, out=out, precision=precision, threads=threads)


if __name__ == "__main__":
    typer.run(main)
