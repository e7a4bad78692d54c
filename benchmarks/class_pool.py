"""How small may the pool of `class_pool` be? Accuracy by its part of the people, against a row for each person.

Every run sees as many images, of drawn people at 64 px, and is tested on others. Runs that are finished are kept.

    python benchmarks/class_pool.py --seeds 3 --steps 400
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from zoo_runs import Faces, Precision, Seeds, Steps, Threads, run_rows

from facelab.config import Tree

BACKBONE: Tree = {"MobileFaceNet": {"width": 0.25, "feat_dim": 128}}
HEAD: Tree = {"CosFace": {"margin": 0.2, "scale": 16}}
FRACTIONS = (1.0, 0.25, 0.05)


def pool_rows(fractions: Sequence[float]) -> dict[str, Tree]:
    """What each row changes in the settings of a run: all rows, then a pool for each part of the people."""
    pools: dict[str, Tree] = {
        f"pool-{fraction:g}": {
            "mode": "class_pool",
            "classifier": {"ClassPool": {"fraction": fraction}},
            "data": {"sampler": "PairsAndInstances"},
        }
        for fraction in fractions
    }
    return {"row-for-each": {"mode": "conventional", "classifier": "FullSoftmax"}, **pools}


def drawn_faces(people: int, per_person: int) -> Faces:
    """Training on some drawn people, and a test on others."""
    source: Tree = {"SyntheticFaces": {"identities": people, "per_identity": per_person}}
    tested: Tree = {"drawn": {"SyntheticPairs": {"identities": 200, "per_identity": 5, "pairs": 4000}}}
    return Faces(f"{people}-people", people * per_person, {"source": source}, tested, ("accuracy", "TAR@FAR=1e-2"))


def main(
    seeds: Seeds = 3,
    steps: Steps = 400,
    people: Annotated[int, typer.Option(min=2, help="People to train on.")] = 1000,
    per_person: Annotated[int, typer.Option(min=2, help="Images of each.")] = 8,
    fraction: Annotated[list[float] | None, typer.Option(help="Size of a pool; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Where runs and tables are written.")] = Path("runs/class-pool"),
    precision: Precision = "fp32",
    threads: Threads = 2,
) -> None:
    """Train what is not finished, then write and print the table of everything that is."""
    common: Tree = {"backbone": BACKBONE, "head": HEAD}
    rows, faces = pool_rows(fraction or FRACTIONS), drawn_faces(people, per_person)
    run_rows(rows, common, faces, seeds=seeds, steps=steps, out=out, precision=precision, threads=threads)


if __name__ == "__main__":
    typer.run(main)
