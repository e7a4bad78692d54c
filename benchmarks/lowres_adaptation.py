"""Which adapter makes a trained network good at low-resolution faces without forgetting high-resolution ones?

LFW's people with at least five images are split by identity: 300 train, 123 are tested. Every image has a version in
high and one in low resolution (`facelab.data.degradation`). The base is EdgeFace-XXS. Each arm and seed writes one JSON
file; those that are there are not run again, so the program can be stopped and started at any time.

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
from lowres_arms import ARMS, embed, train
from lowres_faces import Faces, load_faces
from lowres_results import markdown, measure, paired_table, plot_embeddings, plot_rates, read_runs
from rich.console import Console

from facelab.errors import one_of


def run(name: str, seed: int, steps: int, faces: Faces, weights: Path, out: Path) -> None:
    """Train and measure one arm, and write its embeddings and then its figures."""
    start = time.perf_counter()
    network, trained = train(ARMS[name], faces, weights, steps, seed)
    ready = time.perf_counter()
    gallery, probe, pairs = (embed(network, one) for one in (faces.gallery, faces.probe, faces.pairs))
    half = len(probe) // 2
    unit = {"gallery": gallery, "probe": probe[half:]}
    np.savez(
        out / f"{_stem(name, seed, steps)}.npz",
        **{key: (one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float16) for key, one in unit.items()},
        gallery_person=faces.gallery.person,
        probe_person=faces.probe.person[half:],
    )
    figures = {
        "arm": name,
        "seed": seed,
        "steps": steps,
        "trained": trained,
        "seconds": {"training": ready - start, "test": time.perf_counter() - ready},
        "machine": machine(),
        **measure(gallery, probe, pairs, faces),
    }
    partial = out / "unfinished.tmp"
    partial = partial.with_stem(f"{partial.stem}-{_stem(name, seed, steps)}")
    partial.write_text(json.dumps(figures))
    partial.rename(out / f"{_stem(name, seed, steps)}.json")


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
    plot_rates(runs, out / "rates.png")
    firsts = {arm: out / f"{_stem(arm, found[0]['seed'], steps)}.npz" for arm, found in runs.items()}
    shown = ("frozen", "full", "single", "gated single")
    plot_embeddings({arm: firsts[arm] for arm in shown if arm in firsts} or firsts, out / "embeddings.png")


def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/faces and data/weights.")] = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs, tables and plots are written.")] = Path("runs/lowres"),
    arms: Annotated[list[str] | None, typer.Option(help="Arms to run; all by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1 … of each arm; the frozen base has one.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps of 48 images.")] = 160,
    pairs: Annotated[Path | None, typer.Option(help="LFW's list or a part of it; that of `shared` by default.")] = None,
    threads: Annotated[int, typer.Option(help="Cores to use.")] = 2,
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
    faces = load_faces(data / "faces" / "lfw112.tar", pair_list, cache) if missing else None
    for arm, seed in missing:
        if faces is not None:
            console.print(f"{arm}, seed {seed}", highlight=False)
            run(arm, seed, steps, faces.with_scorer(ARMS[arm].scorer, weights, cnniqa, cache), weights, out)
    report(out, steps, console)


if __name__ == "__main__":
    typer.run(main)
