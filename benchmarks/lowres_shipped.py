"""What a user gets: a shipped configuration on the people of `lowres_adaptation`, by the command line alone.

A base is imported, a folder of the 300 training people is written, and `facelab train` adapts the base to it by
``adaptation/low-resolution`` as it stands, and with other adapters in the place of its own.

    python benchmarks/lowres_shipped.py --shared ../shared --out runs/lowres-shipped --seeds 3
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from lowres_faces import Faces, Files, load_faces, split
from lowres_results import Runs, markdown, measure, paired_table
from machine import machine
from made_once import made_once
from rich.console import Console

import facelab
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import one_of

CONFIG, PEOPLE = "adaptation/low-resolution", "data.source.BothQualities.source.ImageFolder.root"
PLAIN = ["mode.adaptation.alignment=0", "gate=null", "data.quality=null"]
ARMS = {
    "as shipped": [],
    "side by side, BRISQUE": ["adapter={SilentExpert: {added: false}}", "data.quality={BRISQUE: {}}"],
    "full": [*PLAIN, "adapter=Full", "optimizer.lr=3e-4"],
    "LoRA": [*PLAIN, "adapter={LoRA: {rank: 16}}"],
    "dual LoRA": ["mode.adaptation.alignment=0", "adapter={DualLoRA: {rank: 8}}"],
}
"""What the arms change in the configuration."""


def import_base(weights: Path, folder: Path) -> None:
    """EdgeFace-XXS as a folder that runs can begin from."""
    command = ["-m", "facelab", "import", str(weights), "--as", "facelab:EdgeFace-XXS", "--out", str(folder)]
    subprocess.run([sys.executable, *command], check=True)


def write_people(files: Files, folder: Path) -> None:
    """The images of the training people as files, a folder for each person."""
    source = ImageFolder(files.archive)
    wanted = {source.people[person] for person in np.unique(source.labels[split(source)[0]])}
    with tarfile.open(files.archive) as archive:
        members = [one for one in archive.getmembers() if one.isfile() and Path(one.name).parent.name in wanted]
        archive.extractall(folder, members, filter="data")


def train(arm: str, seed: int, base: Path, people: Path, run: Path, more: list[str]) -> None:
    """Adapt the base as a user would."""
    settings = [*ARMS[arm], f"base={base}", f"{PEOPLE}={people}", f"seed={seed}", *more]
    command = [sys.executable, "-m", "facelab", "train", CONFIG, "--run", str(run), *settings]
    subprocess.run(command, check=True)


def test(run: Path, faces: Faces) -> dict[str, float]:
    """Figures of `measure`; networks with a gate score the images by the scorer that they were trained with."""
    model = facelab.load(str(run))
    return measure({name: model.embed(np.array(one.pixels)) for name, one in faces.tested.items()}, faces)


def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/faces and data/weights.")] = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where figures and the table are written.")] = Path("runs/lowres-shipped"),
    cache: Annotated[Path | None, typer.Option(help="Pixels, people, base and runs; in --out by default.")] = None,
    arms: Annotated[list[str] | None, typer.Option(help="Arms to run; all by default.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds of each arm.")] = 1,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    tables: Annotated[bool, typer.Option(help="Write the table at the end.")] = True,
    settings: Annotated[list[str] | None, typer.Option(help="Further settings of every run, as key=value.")] = None,
) -> None:
    """Run what is missing, then print the table of everything that is finished."""
    console = Console()
    files = Files(shared / "data", shared / "data" / "faces" / "lfw_pairs.txt", cache or out / "cache")
    wanted = [
        (one_of("arm", arm, list(ARMS)), seed)
        for seed in range(first_seed, first_seed + seeds)
        for arm in arms or list(ARMS)
    ]
    missing = [(arm, seed) for arm, seed in wanted if not _figures(out, arm, seed).is_file()]
    faces = load_faces(files, device="cuda" if torch.cuda.is_available() else "cpu") if missing else None
    for arm, seed in missing:
        if faces is not None:
            base = made_once(files.cache / "base", lambda folder: import_base(files.weights, folder))
            people = made_once(files.cache / "people", lambda folder: write_people(files, folder))
            run = files.cache / "runs" / _figures(out, arm, seed).stem
            train(arm, seed, base, people, run, settings or [])
            figures = {"arm": arm, "seed": seed, "trained": 1, "machine": machine(), **test(run, faces)}
            out.mkdir(parents=True, exist_ok=True)
            _figures(out, arm, seed).write_text(json.dumps(figures))
    if tables:
        _report(out, console)


def file_name(arm: str) -> str:
    """An arm's name in those of files."""
    return arm.replace(", ", "-").replace(" ", "-")


def _figures(out: Path, arm: str, seed: int) -> Path:
    return out / f"{file_name(arm)}-{seed}.json"


def _report(out: Path, console: Console) -> None:
    runs: Runs = {
        arm: found
        for arm in ARMS
        if (found := [json.loads(path.read_text()) for path in sorted(out.glob(f"{file_name(arm)}-[0-9].json"))])
    }
    others = [arm for arm in runs if arm != "as shipped"]
    text = "\n".join(
        part
        for condition in ("camera 16", "second_order 16")
        for part in (f"{condition} pixels\n", markdown(runs, condition), paired_table(runs, condition, others))
    )
    (out / "table.md").write_text(text)
    console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
