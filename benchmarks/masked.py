"""The four models of FaceX-Zoo's masked table, trained and tested with drawn masks: one command, one table.

1. plain: trained on faces without masks; 2. upper half: the same on the upper half of the faces; 3. with masks: trained
on every face twice, with and without a mask; 4. both: models 2 and 3 together, their embeddings side by side.

Gallery: one image without a mask of each person, and of people who are never looked for. Probes: the other images, as
they are and with masks. By default all faces are drawn; two YAML lines take others:

    python benchmarks/masked.py --out runs/masked
    python benchmarks/masked.py --out runs/real --size 112 --train '{RecordIO: {path: train.rec}}' \\
        --test '{ImageFolder: {root: lfw112.tar}}'
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from comparison import machine
from numpy.typing import NDArray
from rich.console import Console

import facelab
from facelab.data.base import Source
from facelab.data.sources.inner_source import open_inner
from facelab.data.sources.masked import Masked
from facelab.model.face_model import FaceModel
from facelab.model.joined import joined_model
from facelab.run.run import run_training
from facelab.run.settings import make_config

Array = NDArray[Any]
TRAIN = "{SyntheticFaces: {identities: 200, per_identity: 16}}"
TEST = "{SyntheticFaces: {identities: 300, per_identity: 4, split: test}}"
MODELS = ("plain", "upper half", "with masks", "both")
SOUGHT = 2 / 3  # of the people with several images; the others are distractors
FAR = 1e-2
TEST_MASKS = 1  # seed of the masks of the test, which no training has


def settings(name: str, train: Any, backbone: Any, size: int, epochs: int, seed: int) -> dict[str, Any]:
    """The run of one model: with as many updates as the others, although it may see each image twice."""
    twins = {"Concat": {"share_labels": True, "sources": [train, {"Masked": {"source": train}}]}}
    masked = name == "with masks"
    return {
        "name": name.replace(" ", "-"),
        "seed": seed,
        "input": "upper_half" if name == "upper half" else "face",
        "backbone": backbone,
        "head": {"CosFace": {"margin": 0.2, "scale": 16}},
        "data": {"source": twins if masked else train, "size": size},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {"name": "cosine", "warmup_epochs": 0.1},
        "training": {"epochs": epochs // 2 if masked else epochs, "batch_size": 64},
        "evaluation": {"every_epochs": 0},
        "tensorboard": False,
    }


def gallery_and_probes(labels: Array) -> tuple[Array, Array]:
    """Rows: the first image of everybody, and the others of those who are sought."""
    first = np.unique(labels, return_index=True)[1]
    many = np.flatnonzero(np.bincount(labels) > 1)
    sought = many[: max(1, round(SOUGHT * len(many)))]
    others = np.setdiff1d(np.arange(len(labels)), first)
    return first, others[np.isin(labels[others], sought)]


def rates(gallery: Array, probe: Array, people: Array, person: Array) -> dict[str, float]:
    """Rank-1 rate and true accept rate at one false accept in a hundred, in percent."""
    cosine = probe @ gallery.T
    same = person[:, None] == people
    threshold = np.quantile(cosine[~same], 1 - FAR)
    found = people[cosine.argmax(axis=1)] == person
    return {"rank-1": 100 * float(found.mean()), "TAR": 100 * float((cosine[same] > threshold).mean())}


def measure(model: FaceModel, faces: Source, masked: Source) -> dict[str, float]:
    """All rates of one model."""
    rows, others = gallery_and_probes(faces.labels)
    gallery = model.embed(faces.read_many(rows))
    found = {}
    for name, source in (("plain", faces), ("masked", masked)):
        own = rates(gallery, model.embed(source.read_many(others)), faces.labels[rows], faces.labels[others])
        found |= {f"{name} {key}": value for key, value in own.items()}
    return found


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Means and deviations over seeds, as Markdown."""
    columns = list(next(iter(results.values()))[0])
    lines = [f"| model | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, runs in results.items():
        values = np.array([[run[column] for column in columns] for run in runs])
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(columns))
        cells = [f"{mean:.1f} ± {each:.1f}" for mean, each in zip(values.mean(axis=0), spread, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Where runs and the table are written.")] = Path("runs/masked"),
    train: Annotated[str, typer.Option(help="Training source as YAML.")] = TRAIN,
    test: Annotated[str, typer.Option(help="Test source as YAML; none of its people should be in training.")] = TEST,
    backbone: Annotated[str, typer.Option(help="Name or YAML.")] = "{MobileFaceNet: {width: 0.5, feat_dim: 128}}",
    size: Annotated[int, typer.Option(help="Side of the aligned faces.")] = 64,
    epochs: Annotated[int, typer.Option(help="Of the models without masks; an even number.")] = 6,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1 …")] = 3,
) -> None:
    """Train what is missing, test all, and print the table."""
    console = Console()
    faces = open_inner(yaml.safe_load(test), size, None)
    masked = Masked(faces, seed=TEST_MASKS)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in MODELS}
    for seed in range(seeds):
        models = []
        for name in MODELS[:3]:
            config = make_config(
                settings(name, yaml.safe_load(train), yaml.safe_load(backbone), size, epochs, seed), ""
            )
            folder = out / f"{config.name}-{seed}"
            run_training(config, folder, Console(quiet=True), resume=True)
            models.append(facelab.load(folder))
        for name, model in zip(MODELS, [*models, joined_model(models[1:])], strict=True):
            results[name].append(measure(model, faces, masked))
        console.print(table({name: found for name, found in results.items() if found}), highlight=False)
    (out / "table.md").write_text(f"{table(results)}\n")
    (out / "results.json").write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    typer.run(main)
