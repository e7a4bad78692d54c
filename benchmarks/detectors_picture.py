"""Draws a scene of drawn people, what a detector finds in it, and the aligned crops.

python benchmarks/detectors_picture.py --out detectors.png
"""

from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import typer
from detectors import paste, taken, wall
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from facelab.catalogue import build
from facelab.data.alignment.photo_aligner import FaceChoice, PhotoAligner
from facelab.data.base import Pixels
from facelab.data.detection.base import DETECTORS
from facelab.data.synthetic.source import SyntheticFaces

PLACES = (
    (120, 130, 170, -12.0), (320, 110, 120, 8.0), (500, 130, 150, 20.0), (640, 270, 90, -5.0), (90, 330, 100, 25.0),
    (250, 300, 130, 0.0), (430, 320, 70, -20.0), (540, 360, 50, 10.0), (650, 90, 60, 0.0), (380, 400, 36, 5.0),
)  # fmt: skip
"""Centre, side and turn in degrees of each pasted square."""


def group(height: int = 440, width: int = 720, seed: int = 4) -> Pixels:
    """Drawn people of many sizes in one photo."""
    random = np.random.default_rng(seed)
    photo = 90 + 0.5 * wall(random, height, width)
    faces = SyntheticFaces(identities=len(PLACES), per_identity=1, size=112, split="test")
    for row, (x, y, side, turn) in enumerate(PLACES):
        photo, _ = paste(photo, faces.read(row), side, np.deg2rad(turn), np.array([x, y], float))
    return taken(photo, random)


def main(
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("detectors.png"),
    detector: Annotated[str, typer.Option(help="Its name.")] = "yunet",
) -> None:
    """Find, align and draw."""
    mpl.use("agg")
    photo = group()
    made = PhotoAligner(build(DETECTORS, detector), FaceChoice("all")).align(photo, "the scene")
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(4.4, 1.0))
    axes = above.subplots()
    axes.imshow(photo)
    for number, (box, score, points) in enumerate(zip(*made.faces, strict=True)):
        left, top, right, bottom = box
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="white", linewidth=1.2))
        axes.text(left, top - 4, f"{number}: {score:.2f}", color="white", fontsize=7)
        axes.scatter(points[:, 0], points[:, 1], s=5, color="yellow", edgecolors="black", linewidths=0.3)
    crops = below.subplots(1, len(made.crops), squeeze=False)[0]
    for number, crop in enumerate(made.crops):
        crops[number].imshow(crop)
        crops[number].set_title(str(number), fontsize=7, pad=2)
    for one in (axes, *crops):
        one.set_axis_off()
    figure.savefig(out, dpi=90)
    Image.open(out).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(out, optimize=True)  # a third
    print(f"{made.found} faces were found, {len(made.crops)} aligned")


if __name__ == "__main__":
    typer.run(main)
