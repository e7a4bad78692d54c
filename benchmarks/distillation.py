"""Does a small student gain from a teacher on real faces, and from one that sees them sharp?

    python benchmarks/distillation.py --shared ../shared --out runs/distillation          # 3 seeds, hours on two cores
    python benchmarks/distillation.py --seeds 1 --epochs 1 --arms alone distilled         # a first look

The teacher is EdgeFace-XXS (1.24 million parameters, 112 px), the student a MobileFaceNet with a quarter of them
(0.32 million) that sees 64 px. Training people are the 423 of LFW with at least five images; the tests are the LFW
pairs without them, as they are and at 16 pixels. Arms: a student ``alone``, and the same ``distilled``; ``low``
sees half of its images at 8 to 24 pixels, and ``low-distilled`` too, while its teacher sees all of them sharp.
``--shared`` holds data/faces/lfw112.tar, data/faces/lfw_pairs.txt and data/weights/edgeface_xxs.safetensors.
Finished runs are not repeated.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml
from paired_arms import paired_table
from rich.console import Console
from typer.testing import CliRunner

from facelab.cli.main import app
from facelab.run.launch import launch
from facelab.weights.whole_file import write_whole

LOW = {"data": {"augment": {"low_resolution": {"probability": 0.5, "resolution": [8, 24]}}}}
ARMS = ("alone", "distilled", "low", "low-distilled")
TAUGHT = {"distilled": "alone", "low-distilled": "low"}


def settings(shared: Path, people: Path, name: str, output: Path, epochs: int) -> dict[str, Any]:
    """What all runs share."""
    faces = shared / "data" / "faces"
    tested = {"root": str(faces / "lfw112.tar"), "pairs": str(faces / "lfw_pairs.txt"), "exclude": str(people)}
    return {
        "name": name,
        "output": str(output),
        "backbone": {"MobileFaceNet": {"width": 0.45, "feat_dim": 512}},
        "head": {"CosFace": {"margin": 0.2, "scale": 32}},
        "data": {
            "source": {"ImageList": {"root": tested["root"], "list_file": str(people)}},
            "size": 64,
            "resize": True,
        },
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {"epochs": epochs, "batch_size": 64, "log_every": 20},
        "evaluation": {"every_epochs": 0, "protocols": {"LFW": {"LFW": {**tested, "resolution": [16]}}}},
        "tensorboard": False,
    }


def variants(shared: Path, cache: Path, arms: list[str], seeds: int) -> dict[str, dict[str, Any]]:
    """One run for each arm and seed."""
    weights = shared / "data" / "weights" / "edgeface_xxs.safetensors"
    teacher = {
        "teacher": {"EdgeFace-XXS": {"weights": str(weights)}},
        "losses": {"Angular": 7},
        "view": "stored",
        "cache": str(cache),
    }
    taught = {"mode": {"distillation": teacher}}
    changes: dict[str, dict[str, Any]] = {"alone": {}, "distilled": taught, "low": LOW}
    changes["low-distilled"] = {**LOW, **taught}
    return {f"{arm}-{seed}": {**changes[arm], "seed": seed} for seed in range(seeds) for arm in arms}


def run_facelab(*words: str) -> None:
    """A command of facelab, which must end well."""
    result = CliRunner().invoke(app, list(words))
    if result.exit_code:
        raise SystemExit(result.output)
    Console(soft_wrap=True, markup=False, highlight=False).print(result.output)


def main() -> None:
    """Train what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    people = out / "people.txt"
    if not people.is_file():
        faces = options.shared / "data" / "faces" / "lfw112.tar"
        run_facelab("data", "list", str(faces), "--min-images", "5", "--out", str(people))
    study = settings(options.shared, people, "study", out, options.epochs)
    study["variants"] = variants(options.shared, out / "embeddings", options.arms, options.seeds)
    path = out / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    if launch(str(path), [], run=out / "study", resume=(out / "study").is_dir()):
        return
    write_tables(out, options.arms, options.seeds)


def write_tables(out: Path, arms: list[str], seeds: int) -> None:
    """The table of the arms, and each student with a teacher against the same one without."""
    runs = {arm: [out / "study" / f"{arm}-{seed}" for seed in range(seeds)] for arm in arms}
    groups = [f"--group={arm}={','.join(path.name for path in paths)}" for arm, paths in runs.items()]
    columns = ("--metric", "accuracy", "--metric", "accuracy@16px")
    paths = [str(path) for paths in runs.values() for path in paths]
    run_facelab("compare", *paths, *groups, *columns, "--out", str(out / "arms"))
    pairs = [(taught, alone) for taught, alone in TAUGHT.items() if taught in runs and alone in runs]
    tables = [paired_table({alone: runs[alone], taught: runs[taught]}, alone) for taught, alone in pairs]
    print(paired := "\n\n".join(tables))
    write_whole(out / "paired.md", f"{paired}\n")


if __name__ == "__main__":
    main()
