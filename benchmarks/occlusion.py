"""Do faces that are hidden in part become easier to recognise, and what does that cost on clean ones?

EdgeFace-XXS is fine-tuned on the people of LFW with five images or more, and tested on the LFW pairs that show none of
them: clean, and with each of nine regions covered. Arms: ``conventional``; ``occluders`` puts drawn objects in front of
half of the images, ``occluders-2x`` for twice as many updates, which costs as much as the mode; the mode
``occlusion`` with a generator that learns, with the three kinds of chance, and with no dropped cells at all. What is
finished is not run again.

    python benchmarks/occlusion.py --shared ../shared --seeds 3 --steps 300 --jobs 12      # 24 runs on one GPU
    python benchmarks/occlusion.py --seeds 1 --steps 2 --only occluders --only learned     # a first look
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from covered_lfw import CoveredLFW
from paired_arms import drawn_table
from rich.console import Console
from zoo_runs import Faces, Seeds, Shared, finished_runs, write_table

from facelab.config import Tree
from facelab.data.alignment.regions import REGIONS
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import one_of
from facelab.run.study import make_study, run_study
from facelab.test_protocol.protocols.reduced import open_protocol
from facelab.test_protocol.report.report_store import JSON
from facelab.weights.whole_file import write_whole

BATCH, MIN_IMAGES = 64, 5
OCCLUDERS: Tree = {"data": {"augment": {"occlude": {"probability": 0.5}}}}
ALL_OCCLUDED: Tree = {"data": {"augment": {"occlude": {"probability": 1.0}}}}
TWICE = "occluders-2x"
AGAINST = ("conventional", "occluders", TWICE)


def with_mode(**options: object) -> Tree:
    """The mode, which sees each image clean as well: so half of what it sees is hidden too."""
    return {**ALL_OCCLUDED, "mode": {"occlusion": options}}


ARMS: dict[str, Tree] = {
    "conventional": {},
    "occluders": OCCLUDERS,
    "learned": with_mode(generator="learned"),
    "random": with_mode(generator="random"),
    "no-drop": with_mode(generator="random", probability=0.0),
    "half_face": with_mode(generator="half_face"),
    "landmark": with_mode(generator="landmark"),
    TWICE: OCCLUDERS,
}


def real_faces(shared: Path, out: Path, steps: int, regions: list[str], kept: Path) -> Faces:
    """The people of LFW with five images or more, and the pairs without them, clean and with regions covered.

    Args:
        shared: Folder with ``data/faces/lfw112.tar`` and ``data/faces/lfw_pairs.txt``.
        out: Where the lists are written.
        steps: For less than an epoch, only as many people train as it takes.
        regions: Which of the nine are covered, each in a test of its own; none for all. Runs that are tested
            otherwise lie in another folder.
        kept: Folder of the pixels of the test, 3 GB for all regions.

    Raises:
        ConfigError: If there is no such region.
    """
    for region in regions:
        one_of("region", region, tuple(REGIONS))
    root, pairs = (str(shared / "data" / "faces" / file) for file in ("lfw112.tar", "lfw_pairs.txt"))
    folder = ImageFolder(Path(root), min_images=MIN_IMAGES)
    people = write_whole(out / "people.txt", "".join(f"{person}\n" for person in folder.people))
    images = np.bincount(folder.labels).cumsum()
    count = min(len(images), int(np.searchsorted(images, steps * BATCH)) + 1)
    trained = write_whole(out / f"trained-{count}.txt", "".join(f"{person}\n" for person in folder.people[:count]))
    source: Tree = {"source": {"ImageFolder": {"root": root, "ids": str(trained)}}}
    tested = [region for region in REGIONS if region in (regions or REGIONS)]
    lfw = {"root": root, "pairs": pairs, "exclude": str(people), "occlude": tested, "kept": str(kept)}
    covered = "accuracy@occluded" if len(tested) > 1 else f"accuracy@{tested[0]}"
    name = "lfw" if len(tested) == len(REGIONS) else f"lfw-{'-'.join(tested)}"
    return Faces(name, int(images[count - 1]), source, {"LFW": {"CoveredLFW": lfw}}, ("accuracy", covered))


def settings(faces: Faces, shared: Path, steps: int, rate: float) -> Tree:
    """What all runs share: the recipe of ``conventional/finetune`` at another rate, tuned for no arm of the mode."""
    weights = str(shared / "data" / "weights" / "edgeface_xxs.safetensors")
    epochs = max(1, round(steps / (faces.images // BATCH)))
    return {
        "backbone": {"EdgeFace-XXS": {"weights": weights}},
        "head": {"CosFace": {"margin": 0.35, "scale": 32}},
        "data": {**faces.data, "workers": 1},
        "optimizer": {"name": "adamw", "lr": rate, "class_lr": 1e-2, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.2},
        "training": {"epochs": epochs, "batch_size": BATCH, "log_every": 20},
        "evaluation": {"every_epochs": 0, "batch_size": 256, "protocols": faces.protocols},
        "tensorboard": False,
    }


def changes(arm: str, seed: int, tree: Tree) -> Tree:
    """What a run changes in the settings of all."""
    epochs = tree["training"]["epochs"] * (2 if arm == TWICE else 1)
    return {**ARMS[arm], "seed": seed, "training": {"epochs": epochs}}


def train_apart(runs: list[str], jobs: int) -> None:
    """Train runs side by side, each in a process and on a thread of its own, with the options of this one."""
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_NUM_THREADS"), "1")}

    def train(run: str) -> None:
        Console().print(f"{run} begins")
        ended = subprocess.run(
            [sys.executable, *sys.argv, "--run", run], env=environment, capture_output=True, text=True
        )
        Console().print(f"{run} ended" if ended.returncode == 0 else ended.stdout[-2000:] + ended.stderr[-2000:])

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, runs))


def main(
    seeds: Seeds = 3,
    steps: Annotated[int, typer.Option(min=1, help="Updates of 64 images; rounded to whole epochs.")] = 300,
    only: Annotated[list[str] | None, typer.Option(help="An arm; repeatable. All by default.")] = None,
    regions: Annotated[
        list[str] | None, typer.Option(help="A region to cover; repeatable. All nine by default.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Learning rate of the network.")] = 1e-4,
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side.")] = 1,
    run: Annotated[
        str | None, typer.Option(hidden=True, help="The one run of a process that trains beside others.")
    ] = None,
    shared: Shared = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs and tables are written.")] = Path("runs/occlusion"),
    cache: Annotated[Path | None, typer.Option(help="Pixels of the test, 3 GB; in --out by default.")] = None,
) -> None:
    """Train what is not finished, then write and print the tables of everything that is."""
    out.mkdir(parents=True, exist_ok=True)
    arms = [one_of("arm", arm, tuple(ARMS)) for arm in only or ARMS]
    faces = real_faces(shared, out, steps, regions or [], cache or out / "pixels")
    tree = settings(faces, shared, steps, rate)
    folder = out / f"{faces.name}-{steps}-{rate:g}"
    wanted = {f"{arm}-{seed}": changes(arm, seed, tree) for seed in range(seeds) for arm in arms}
    missing = [name for name in wanted if not (folder / name / JSON).is_file()]
    if jobs > 1 and run is None and missing:
        train_apart(missing, jobs)
    else:
        torch.set_num_threads(1 if run else torch.get_num_threads())
        tested = open_protocol(faces.protocols["LFW"])
        if missing and isinstance(tested, CoveredLFW):
            tested.keep()
        chosen = wanted if run is None else {run: wanted[run]}
        stopped, _ = run_study(
            make_study({**tree, "name": folder.name, "variants": chosen}, folder, folder.name), Console()
        )
        if stopped:
            raise typer.Exit(128 + stopped)
    if run is None and finished_runs(folder):
        write_table(folder, faces)
        text = drawn_table(finished_runs(folder), AGAINST, faces.columns)
        write_whole(folder / "comparison" / "paired.md", f"{text}\n")
        Console(soft_wrap=True, markup=False, highlight=False).print(text)


if __name__ == "__main__":
    typer.run(main)
