"""How well do networks separate people that were trained with different heads, all else equal?

The table of FaceX-Zoo's section 3.2: every head with one small MobileFaceNet at 64 px, some seeds each, on the same
drawn people or on those of LFW. Every run has a folder: what is finished is not run again, and the rest goes on.

    python benchmarks/heads.py --seeds 3 --steps 200
    python benchmarks/heads.py --data lfw --shared ../shared --only ArcFace --only CosFace
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from zoo_runs import DataName, Precision, Seeds, Shared, Steps, Threads, open_faces, run_rows

from facelab.catalogue import resolve
from facelab.config import Tree
from facelab.head.base import HEADS

BACKBONE: Tree = {"MobileFaceNet": {"width": 0.25, "feat_dim": 128}}
SCALE, PUBLISHED_SCALE = 16, 64
"""Every head that has a scale has the same. Those of the papers, mostly 64, are for 70,000 people and more; the right
one grows with the logarithm of their number (AdaCos), and with 32 200 updates are too few for a margin of 0.5."""
QUADRATIC = {"CircleLoss": "gamma"}  # weighs squares of cosines; divided by what 64 is divided by
VARIANTS = ("AM-Softmax", "NormFace", "ElasticFace-Cos", "ElasticFace-Arc+", "ElasticFace-Cos+", "MV-Softmax-Arc")


def head_rows(names: Sequence[str]) -> dict[str, Tree]:
    """What each head changes in the settings of a run.

    Args:
        names: Catalogue entries.

    Raises:
        ConfigError: If there is no such head.
    """
    return {name: {"head": {name: rescaled(name)}} for name in names}


def rescaled(entry: str) -> dict[str, Any]:
    """The scale of this study for a head that has one; margins and all else are those of ``head_conf.yaml``."""
    name, options = resolve(HEADS, entry)
    given = {key: parameter.default for key, parameter in HEADS.parameters(name).items()} | options
    if name in QUADRATIC:
        return {QUADRATIC[name]: given[QUADRATIC[name]] * SCALE / PUBLISHED_SCALE}
    return {} if given.get("scale") is None else {"scale": SCALE}


def main(
    seeds: Seeds = 3,
    steps: Steps = 200,
    only: Annotated[list[str] | None, typer.Option(help="Entry of head_conf.yaml; repeatable. All heads.")] = None,
    data: DataName = "synthetic",
    shared: Shared = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs and tables are written.")] = Path("runs/heads"),
    precision: Precision = "fp32",
    threads: Threads = 2,
) -> None:
    """Train what is not finished, then write and print the table of everything that is."""
    rows = head_rows(only or (*HEADS.names(), *VARIANTS))
    faces, common = open_faces(data, shared, out), {"backbone": BACKBONE}
    run_rows(rows, common, faces, seeds=seeds, steps=steps, out=out, precision=precision, threads=threads)


if __name__ == "__main__":
    typer.run(main)
