"""How fast is BRISQUE? The package ``brisque`` 0.2.0, one image at a time, against `facelab.iqa.brisque` in batches.

That package needs NumPy 1: give the Python of an environment where it runs, and both are measured in turns on the same
images and their scores are compared. Without one, the baseline is the documented 30 ms an image, and the table says so.

    python -m venv old && old/bin/pip install "numpy<2" brisque==0.2.0 scikit-image requests opencv-python-headless
    python benchmarks/quality.py --baseline-python old/bin/python --out quality.json
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from comparison import Comparison, compare, report
from numpy.typing import NDArray
from photos import write_photos
from rich.console import Console

from facelab.data.sources.image_folder import ImageFolder
from facelab.data.synthetic.render import render_face
from facelab.iqa.brisque import BRISQUE

SIZE = 112
DOCUMENTED = 1 / 0.030  # images a second of brisque 0.2.0
TOLERANCE = 0.2
GOAL = 20.0
ORIGINAL = """
import json, sys, time
import numpy as np
from brisque import BRISQUE
images, scorer = np.load(sys.argv[1]), BRISQUE(url=False)
scorer.score(images[0])
start = time.perf_counter()
scores = [float(scorer.score(image)) for image in images]
print(json.dumps({"rate": len(images) / (time.perf_counter() - start), "scores": scores}))
"""


def faces(count: int, tar: Path | None, folder: Path) -> NDArray[np.uint8]:
    """Images of 112x112: drawn faces, or photos from an archive."""
    if tar is None:
        return np.stack([render_face(0, person, 0, SIZE) for person in range(count)])
    source = ImageFolder(write_photos(folder, count, SIZE, tar)[0][0].parents[1])
    return np.stack([source.read(row) for row in range(count)])


def original(python: Path, images: NDArray[np.uint8], folder: Path) -> tuple[float, list[float]]:
    """Images a second and scores of brisque 0.2.0 in an environment of its own."""
    np.save(folder / "images.npy", images)
    command = [str(python), "-c", ORIGINAL, str(folder / "images.npy")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"})
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["rate"], answer["scores"]


def ours(scorer: BRISQUE, images: NDArray[np.uint8], batch_size: int) -> float:
    """Images a second in batches."""
    start = time.perf_counter()
    for batch in torch.from_numpy(images).permute(0, 3, 1, 2).split(batch_size):
        scorer.score(batch)
    return len(images) / (time.perf_counter() - start)


def main(
    images: Annotated[int, typer.Option(help="Images for ours.")] = 512,
    one_by_one: Annotated[int, typer.Option(help="Images for the original.")] = 32,
    batch_size: Annotated[int, typer.Option(help="Images scored at once.")] = 64,
    rounds: Annotated[int, typer.Option(help="Measurements of each.")] = 5,
    baseline_python: Annotated[Path | None, typer.Option(help="Python with brisque 0.2.0 and NumPy 1.")] = None,
    tar: Annotated[Path | None, typer.Option(help="Photos in folders of people; drawn faces by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare the speed of BRISQUE, with one thread each."""
    torch.set_num_threads(1)
    scorer, console = BRISQUE(), Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = faces(images, tar, folder)
        few = pixels[:one_by_one]
        if baseline_python is None:
            console.print("The baseline was not measured: it is the documented 30 ms an image of brisque 0.2.0.")
            ours(scorer, pixels, batch_size)  # warms up
            rates = tuple(ours(scorer, pixels, batch_size) for _ in range(rounds))
            row = Comparison("brisque 0.2.0 (documented) against batches", (DOCUMENTED,), rates, goal=GOAL)
        else:
            found = scorer.score(torch.from_numpy(few).permute(0, 3, 1, 2)).numpy()
            apart = np.abs(found - original(baseline_python, few, folder)[1]).max()
            console.print(f"The scores of {len(few)} images differ by {apart:.3f} at most (allowed: {TOLERANCE}).")
            row = compare(
                "brisque 0.2.0 one by one against batches",
                lambda: original(baseline_python, few, folder)[0],
                lambda: ours(scorer, pixels, batch_size),
                rounds=rounds,
                goal=GOAL,
            )
    report(f"BRISQUE of {SIZE}x{SIZE} images, batches of {batch_size}, one thread", [row], out, console)


if __name__ == "__main__":
    typer.run(main)
