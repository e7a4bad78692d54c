"""Does a student of coarse faces find low probes better if its teacher sees the faces sharp?

The people, gallery and probes are those of `lowres_adaptation`: 300 people of LFW train, others are searched for. The
teacher is EdgeFace-XXS, and sees the images as they are stored. Arms: a ``small`` student, a MobileFaceNet with a
quarter of the parameters that sees 64 px, begins with random weights; ``low`` sees half of its images at 10 to 24
pixels, by the recipe ``camera``. The student ``again`` is EdgeFace-XXS itself with its weights, at 112 px, which sees
such images too. Each of them has a twin that is ``taught``, with the weight 7 of VarGFaceNet, and ``again low`` has one
that is ``taught lightly``, with a weight of 2.

    python benchmarks/lowres_students.py --shared ../shared --out runs/lowres-students --seeds 3
    python benchmarks/lowres_students.py --arms "again low" --seeds 1 --steps 2                  # a first look
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lowres_faces import Faces, Files, load_faces, split
from lowres_results import Runs, markdown, measure, paired_table
from machine import machine
from rich.console import Console

import facelab
from facelab.config import Tree, merge
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import one_of
from facelab.run.run import run_training
from facelab.run.settings import SPEC_PATHS, make_config
from facelab.weights.whole_file import write_whole

BATCH = 64
SMALL: Tree = {
    "backbone": {"MobileFaceNet": {"width": 0.45, "feat_dim": 512}},
    "head": {"CosFace": {"margin": 0.2, "scale": 32}},
    "data": {"size": 64, "resize": True},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"clip_norm": 5},
}
AGAIN: Tree = {
    "head": {"CosFace": {"margin": 0.35, "scale": 32}},
    "optimizer": {"name": "adamw", "lr": 1e-4, "class_lr": 1e-2, "weight_decay": 0.05},
}
LOW: Tree = {"data": {"augment": {"low_resolution": {"probability": 0.5, "resolution": [10, 24], "recipe": "camera"}}}}
STUDENTS = {"small": (SMALL,), "small low": (SMALL, LOW), "again low": (AGAIN, LOW)}
TAUGHT = {f"{student} taught": (student, 7) for student in STUDENTS} | {"again low taught lightly": ("again low", 2)}
"""The same student without a teacher, and the weight of the distillation."""
ARMS = (*STUDENTS, *TAUGHT)
STEPS = {"small": 1300, "small low": 1300, "again low": 260}
"""Updates of each student."""
CONDITIONS = ("camera 16", "average 16", "second_order 16")


def settings(arm: str, seed: int, files: Files, people: Path, images: int, steps: int) -> Tree:
    """The run of an arm.

    Args:
        arm: Its name.
        seed: Chooses all random numbers.
        files: Where things lie.
        people: A file with the names of those who train.
        images: How many they have.
        steps: Updates, rounded to whole epochs; 0 for those of the student.
    """
    student, weight = TAUGHT.get(arm, (arm, 0))
    edgeface: Tree = {"EdgeFace-XXS": {"weights": str(files.weights)}}
    tree: Tree = {
        "name": arm.replace(" ", "-"),
        "seed": seed,
        "backbone": edgeface,
        "data": {"source": {"ImageFolder": {"root": str(files.archive), "ids": str(people)}}, "size": 112},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {
            "epochs": max(1, round((steps or STEPS[student]) / (images // BATCH))),
            "batch_size": BATCH,
            "log_every": 20,
        },
        "evaluation": {"every_epochs": 0},
        "tensorboard": False,
    }
    for changes in STUDENTS[student]:
        tree = merge(tree, changes, SPEC_PATHS)
    if weight:
        kept = str(files.cache / "teacher")
        losses: Tree = {"Angular": weight}
        tree["mode"] = {"distillation": {"teacher": edgeface, "losses": losses, "view": "stored", "cache": kept}}
    return tree


def train(arm: str, seed: int, files: Files, split_seed: int, steps: int) -> Path:
    """The folder of the trained run."""
    source = ImageFolder(files.archive)
    labels = source.labels[split(source, split_seed)[0]]
    names = "".join(f"{source.people[person]}\n" for person in np.unique(labels))
    people = write_whole(files.cache / f"people-{split_seed}.txt", names)
    config = make_config(settings(arm, seed, files, people, len(labels), steps), arm)
    folder = files.cache / "runs" / f"{config.name}-{split_seed}-{steps}-{seed}"
    run_training(config, folder, Console(), resume=True)
    return folder


def test(run: Path, faces: Faces) -> dict[str, Any]:
    """Figures of `measure`."""
    model = facelab.load(run)
    sets = {name: np.array(one.pixels) for name, one in faces.tested.items()}
    return measure({name: model.embed(one, resize=True, batch_size=256) for name, one in sets.items()}, faces)


def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/faces and data/weights.")] = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where figures and tables are written.")] = Path("runs/lowres-students"),
    cache: Annotated[Path | None, typer.Option(help="Pixels, embeddings and runs; in --out by default.")] = None,
    arms: Annotated[list[str] | None, typer.Option(help="Arms to run; all by default.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds of each arm.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    steps: Annotated[int, typer.Option(help="Updates of 64 images; by default 1,300 of small, 260 of again.")] = 0,
    split_seed: Annotated[int, typer.Option("--split", help="Chooses who trains and who is tested.")] = 0,
    pairs: Annotated[Path | None, typer.Option(help="LFW's list or a part of it; that of `shared` by default.")] = None,
    tables: Annotated[bool, typer.Option(help="Write the tables at the end.")] = True,
) -> None:
    """Run what is missing, then print the tables of everything that is finished."""
    console = Console()
    files = Files(shared / "data", pairs or shared / "data" / "faces" / "lfw_pairs.txt", cache or out / "cache")
    wanted = [
        (one_of("arm", arm, ARMS), seed)
        for seed in range(first_seed, first_seed + seeds)
        for arm in arms or ARMS
        if not figures_of(out, arm, seed).is_file()
    ]
    faces = load_faces(files, "camera", split_seed, "cuda" if torch.cuda.is_available() else "cpu") if wanted else None
    for arm, seed in wanted:
        if faces is not None:
            run = train(arm, seed, files, split_seed, steps)
            trained = sum(one.numel() for one in facelab.load(run).network.parameters())
            figures = {"arm": arm, "seed": seed, "trained": trained, "machine": machine(), **test(run, faces)}
            out.mkdir(parents=True, exist_ok=True)
            write_whole(figures_of(out, arm, seed), json.dumps(figures))
    if tables:
        report(out, console)


def figures_of(out: Path, arm: str, seed: int) -> Path:
    """The file of a finished run."""
    return out / f"{arm.replace(' ', '-')}-{seed}.json"


def report(out: Path, console: Console) -> None:
    """All arms, and each student with a teacher against the same one without."""
    finished = [json.loads(path.read_text()) for path in sorted(out.glob("*-*.json"))]
    runs: Runs = {arm: found for arm in ARMS if (found := [one for one in finished if one["arm"] == arm])}
    parts = []
    for condition in CONDITIONS:
        parts += [f"{condition} pixels\n", markdown(runs, condition)]
        parts += [
            paired_table({taught: runs[taught], student: runs[student]}, condition, [student])
            for taught, (student, _) in TAUGHT.items()
            if taught in runs and student in runs
        ]
    text = "\n".join(parts)
    write_whole(out / "table.md", text)
    console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
