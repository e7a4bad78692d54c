"""Which adapter makes a trained network good at low-resolution faces without forgetting high-resolution ones?

LFW's people with at least five images are split by identity: 300 train, 123 are tested. Every image has a version in
high and one in low resolution (`facelab.data.sources.degradation`). The base is EdgeFace-XXS. Each arm and seed writes
one JSON file; those that are there are not run again, so the program can be stopped and started at any time.

    python benchmarks/lowres_adaptation.py --shared ../shared --out runs/lowres --arms frozen --arms single --seeds 3
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from comparison import machine
from lowres_arms import ARMS, SILENT, Arm, embed_in_spaces, gate_of, train
from lowres_faces import TESTED, Faces, Files, load_faces
from lowres_results import joined_sets, markdown, measure, paired_table, plot_embeddings, plot_rates, read_runs
from rich.console import Console

from facelab.adapter.gate import Gate
from facelab.data.transforms.low_resolution import Recipe
from facelab.errors import DataError, one_of


def run(name: str, seed: int, steps: int, faces: Faces, files: Files, out: Path) -> None:
    """Train an arm, or take the network of another, measure it, and write its embeddings and then its figures."""
    arm, start = ARMS[name], time.perf_counter()
    stored = out / f"{_stem(arm.network or name, seed, steps)}.npz"
    trained = _trained(arm, faces, files.weights, steps, seed, stored)
    ready = time.perf_counter()
    scored = faces.with_scorer(arm.scorer, files.weights, files.cnniqa, files.cache)
    figures = {
        "arm": name,
        "seed": seed,
        "steps": steps,
        "trained": trained,
        "seconds": {"training": ready - start, "test": time.perf_counter() - ready},
        "machine": machine(),
        **measure(joined_sets(stored, _gate(arm, scored, stored), scored), scored),
    }
    partial = out / f"unfinished-{_stem(name, seed, steps)}.tmp"
    partial.write_text(json.dumps(figures))
    partial.rename(out / f"{_stem(name, seed, steps)}.json")


def _trained(arm: Arm, faces: Faces, weights: Path, steps: int, seed: int, stored: Path) -> int:
    """Write the embeddings of the trained network to ``stored``, unless they are there; how many were trained."""
    if arm.network and not stored.is_file():
        raise DataError(f"{stored}: this arm tests the network of '{arm.network}' otherwise; run that one first.")
    if stored.is_file():
        with np.load(stored) as kept:
            return int(kept["trained"])
    knowing = faces.with_scorer("Perfect", weights, weights, stored.parent)
    network, trained = train(arm, knowing, weights, steps, seed)
    spaces = {name: embed_in_spaces(network, getattr(knowing, name), arm.two_spaces) for name in TESTED}
    partial = stored.with_suffix(".unfinished.npz")
    people = {f"{name}_person": getattr(knowing, name).person for name in ("gallery", "probe")}
    gate = getattr(network, "gate", None) or gate_of(arm, knowing)
    learned = {f"gate.{name}": tensor.numpy() for name, tensor in gate.state_dict().items()}
    embedded = {name: one.astype(np.float16) for name, one in spaces.items()}
    np.savez(partial, trained=trained, **people, **learned, **embedded)
    partial.rename(stored)
    return trained


def _gate(arm: Arm, scored: Faces, stored: Path) -> Gate:
    """As calibrated, and as trained where this is the arm that trained it."""
    gate = gate_of(arm, scored)
    if not arm.network:
        with np.load(stored) as kept:
            gate.load_state_dict({name[5:]: torch.from_numpy(kept[name]) for name in kept if name.startswith("gate.")})
    return gate


def _stem(name: str, seed: int, steps: int) -> str:
    return f"{name.replace(', ', '-').replace(' ', '_')}-{steps}-{seed}"


def report(out: Path, steps: int, console: Console) -> None:
    """Tables and plots of all finished runs of so many steps."""
    runs = {arm: kept for arm, found in read_runs(out).items() if (kept := [r for r in found if r["steps"] == steps])}
    runs = {arm: runs[arm] for arm in ARMS if arm in runs}
    if not runs:
        return
    text = f"{markdown(runs)}\n{paired_table(runs)}"
    (out / "table.md").write_text(text)
    console.print(text, highlight=False, soft_wrap=True)
    firsts = {arm: out / f"{_stem(arm, found[0]['seed'], steps)}.npz" for arm, found in runs.items()}
    shown = {arm: firsts[arm] for arm in ("frozen", "full", "single", SILENT) if arm in firsts}
    plot_rates(runs, out / "rates.png")
    plot_embeddings(shown or firsts, out / "embeddings.png")


def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/faces and data/weights.")] = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs, tables and plots are written.")] = Path("runs/lowres"),
    arms: Annotated[list[str] | None, typer.Option(help="Arms to run; all by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1 … of each arm; the frozen base has one.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps of 48 images.")] = 160,
    pairs: Annotated[Path | None, typer.Option(help="LFW's list or a part of it; that of `shared` by default.")] = None,
    threads: Annotated[int, typer.Option(help="Cores to use.")] = 2,
    train_recipe: Annotated[Recipe, typer.Option(help="How low versions of training images are made.")] = "camera",
    probe_recipe: Annotated[Recipe, typer.Option(help="How probes are; each pair of recipes has its own --out.")] = (
        "camera"
    ),
) -> None:
    """Run what is missing, then print the table of everything that is finished."""
    torch.set_num_threads(threads)
    console = Console()
    data, cache = shared / "data", out / "cache"
    weights, cnniqa = data / "weights" / "edgeface_xxs.safetensors", data / "weights" / "cnniqa_live.safetensors"
    wanted = [one_of("arm", arm, list(ARMS)) for arm in arms or list(ARMS)]
    missing = [
        (arm, seed)
        for seed in range(seeds)
        for arm in wanted
        if (arm != "frozen" or seed == 0) and not (out / f"{_stem(arm, seed, steps)}.json").is_file()
    ]
    pair_list = pairs or data / "faces" / "lfw_pairs.txt"
    archive, recipes = data / "faces" / "lfw112.tar", (train_recipe, probe_recipe)
    _require_same(out, recipes)
    faces = load_faces(archive, pair_list, cache, *recipes) if missing else None
    for arm, seed in missing:
        if faces is not None:
            console.print(f"{arm}, seed {seed}", highlight=False)
            run(arm, seed, steps, faces, Files(weights, cnniqa, cache), out)
    report(out, steps, console)


def _require_same(out: Path, recipes: tuple[Recipe, Recipe]) -> None:
    """Refuse runs of several recipes in one table; folders from before there were any are of ``camera``."""
    path = out / "cache" / "recipes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = tuple(json.loads(path.read_text())) if path.is_file() else ("camera", "camera")
    if known != recipes and any(out.glob("*.json")):
        raise typer.BadParameter(f"'{out}' holds runs of the recipes {' and '.join(known)}; give these another --out.")
    path.write_text(json.dumps(recipes))


if __name__ == "__main__":
    typer.run(main)
