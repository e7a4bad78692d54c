"""Which adapter makes a trained network good at low-resolution faces without forgetting high-resolution ones?

LFW's people with at least five images are split by identity: 300 train, 123 are tested. Every image has a version in
high and one in low resolution (`facelab.data.sources.degradation`); those of the probes are made by every recipe and at
several sizes, so that what is trained with one recipe is tested with all. Each arm and seed writes one JSON file;
those that are there are not run again, so the program can be stopped and started at any time, and several can run
side by side.

    python benchmarks/lowres_adaptation.py --shared ../shared --out runs/lowres --arms frozen --arms single --seeds 3
    python benchmarks/lowres_adaptation.py --train-recipe interpolation --probe-recipe second_order --probe-size 12
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lowres_arms import ARMS, SILENT, Arm, Setting, embed_twice, gate_of, train
from lowres_bases import EDGEFACE, open_base
from lowres_faces import CONDITIONS, PERFECT, Faces, Files, load_faces
from lowres_matrix import matrices
from lowres_results import markdown, measure, paired_table, plot_embeddings, plot_rates, read_runs, tested_embeddings
from machine import machine
from rich.console import Console

from facelab.adapter.gate import Gate
from facelab.backbone.base import Backbone
from facelab.data.transforms.low_resolution import Recipe
from facelab.errors import one_of

Run = tuple[str, int]


def run(name: str, seed: int, setting: Setting, faces: Faces, base: str, files: Files, out: Path, device: str) -> None:
    """Train an arm, or take the network of another, measure it, and write its figures."""
    arm, start = ARMS[name], time.perf_counter()
    owner = arm.network or name
    stored = _embeddings(files, owner, seed, setting)
    if not stored.is_file():
        _train(ARMS[owner], faces.with_scorer(PERFECT, base, files), base, setting, seed, stored, files, device)
    ready = time.perf_counter()
    scored = faces.with_scorer(arm.scorer, base, files)
    with np.load(stored) as kept:
        trained = int(kept["trained"])
    figures = {
        "arm": name,
        "seed": seed,
        "setting": asdict(setting.of(name)),
        "trained": trained,
        "seconds": {"training": ready - start, "test": time.perf_counter() - ready},
        "machine": machine() | {"device": device},
        **measure(tested_embeddings(stored, _gate(arm, scored, stored), arm, scored), scored),
    }
    partial = out / f"{setting.stem(name, seed)}.unfinished"
    partial.write_text(json.dumps(figures))
    partial.rename(out / f"{setting.stem(name, seed)}.json")


def _embeddings(files: Files, arm: str, seed: int, setting: Setting) -> Path:
    return files.cache / "embeddings" / f"{setting.stem(arm, seed)}.npz"


def _train(
    arm: Arm, knowing: Faces, base: str, setting: Setting, seed: int, stored: Path, files: Files, device: str
) -> None:
    """Write what the trained network embeds to ``stored``; where it has two spaces, the training images too."""
    place = torch.device(device)
    network, trained = train(arm, knowing, open_base(base, files.weights), setting.steps, seed, place)
    learned = {f"gate.{name}": tensor.cpu().numpy() for name, tensor in _learned_gate(network).items()}
    sets = {**knowing.tested, **({"train": knowing.train} if arm.two_spaces else {})}
    embedded = {name: embed_twice(network, one, arm.two_spaces).astype(np.float16) for name, one in sets.items()}
    people = {f"{name}_person": knowing.tested[name].person for name in ("gallery", "probe")}
    arrays: dict[str, Any] = {**people, **learned, **embedded}
    stored.parent.mkdir(parents=True, exist_ok=True)
    partial = stored.with_suffix(".unfinished.npz")
    np.savez(partial, trained=trained, **arrays)
    partial.rename(stored)


def _learned_gate(network: Backbone) -> dict[str, torch.Tensor]:
    gate = getattr(network, "gate", None)
    return gate.state_dict() if isinstance(gate, Gate) else {}


def _gate(arm: Arm, scored: Faces, stored: Path) -> Gate:
    """As calibrated, and as trained where this is the arm that trained it."""
    gate = gate_of(arm, scored)
    if not arm.network:
        with np.load(stored) as kept:
            learned = {name[5:]: torch.from_numpy(kept[name]) for name in kept if name.startswith("gate.")}
        gate.load_state_dict(learned or gate.state_dict())
    return gate


def report(out: Path, setting: Setting, condition: str, files: Files, console: Console) -> None:
    """Tables and plots of all finished runs: those of one setting and condition, and what all of them say together."""
    matrix = matrices(out, setting)
    if matrix:
        (out / "matrix.md").write_text(matrix)
    runs = read_runs(out, setting)
    if not runs:
        return
    text = f"{markdown(runs, condition)}\n{paired_table(runs, condition)}"
    (out / "table.md").write_text(text)
    console.print(text, highlight=False, soft_wrap=True)
    plot_rates(runs, condition, out / "rates.png")
    firsts = {arm: _embeddings(files, ARMS[arm].network or arm, runs[arm][0]["seed"], setting) for arm in runs}
    there = {arm: path for arm, path in firsts.items() if path.is_file()}
    shown = {arm: there[arm] for arm in ("frozen", "full", "single", SILENT) if arm in there} or there
    if shown:
        plot_embeddings(shown, condition, out / "embeddings.png")


def _missing(arms: list[str], seeds: range, setting: Setting, out: Path) -> Iterator[Run]:
    for seed in seeds:
        for arm in arms:
            if (ARMS[arm].adapter or seed == 0) and not (out / f"{setting.stem(arm, seed)}.json").is_file():
                yield arm, seed


def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/faces and data/weights.")] = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs, tables and plots are written.")] = Path("runs/lowres"),
    cache: Annotated[
        Path | None, typer.Option(help="Pixels, scores and embeddings; cache in --out by default.")
    ] = None,
    arms: Annotated[list[str] | None, typer.Option(help="Arms to run; all by default.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds of each arm; the frozen base has one.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first of them; the base is that of seed 0.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of 48 images.")] = 160,
    pairs: Annotated[Path | None, typer.Option(help="LFW's list or a part of it; that of `shared` by default.")] = None,
    threads: Annotated[int, typer.Option(help="Cores to use.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    base: Annotated[
        str, typer.Option(help="edgeface, or the folder model of face-api, with dlib's ResNet.")
    ] = EDGEFACE,
    split: Annotated[int, typer.Option(help="Chooses who trains and who is tested.")] = 0,
    train_recipe: Annotated[Recipe, typer.Option(help="How low versions of training images are made.")] = "camera",
    probe_recipe: Annotated[Recipe, typer.Option(help="How the probes of the table are.")] = "camera",
    probe_size: Annotated[int, typer.Option(help="Their pixels a side.")] = 16,
    tables: Annotated[bool, typer.Option(help="Write tables and plots at the end.")] = True,
) -> None:
    """Run what is missing, then print the table of everything that is finished."""
    torch.set_num_threads(threads)
    console = Console()
    condition = one_of("probes", f"{probe_recipe} {probe_size}", list(CONDITIONS))
    setting = Setting(train_recipe, Path(base).name, split, steps)
    files = Files(shared / "data", pairs or shared / "data" / "faces" / "lfw_pairs.txt", cache or out / "cache")
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    missing = list(
        _missing(
            [one_of("arm", arm, list(ARMS)) for arm in arms or list(ARMS)],
            range(first_seed, first_seed + seeds),
            setting,
            out,
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    faces = load_faces(files, train_recipe, split, place) if missing else None
    for arm, seed in missing:
        if faces is not None:
            console.print(f"{arm}, seed {seed}", highlight=False)
            run(arm, seed, setting, faces, base, files, out, place)
    if tables:
        report(out, setting, condition, files, console)


if __name__ == "__main__":
    typer.run(main)
