"""Two real images of each person: semi-siamese against conventional training, tested on people never seen.

Of the people of LFW with two images or more, part is trained on, with two images each; the test is the pairs of LFW
that show none of them. A narrow MobileFaceNet at 64 px from scratch, for about 250 epochs as FaceX-Zoo's recipe, and
with its random crops in both arms. Runs that are finished are kept.

    python benchmarks/shallow_faces.py --shared ../shared --seeds 3 --steps 2250
"""

import zlib
from pathlib import Path
from typing import Annotated

import typer
from zoo_runs import SIZE, Faces, Precision, Seeds, Shared, Steps, Threads, run_rows

from facelab.config import Tree
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.image_list import ImageList
from facelab.data.sources.packed import write_packed
from facelab.data.sources.resized import Resized
from facelab.weights.whole_file import write_whole

BACKBONE: Tree = {"MobileFaceNet": {"width": 0.25, "feat_dim": 128}}
COSFACE: Tree = {"CosFace": {"margin": 0.2, "scale": 16}}
CROPS: Tree = {"flip": 0.5, "crop": {"probability": 0.5, "smallest": 0.7}}
BATCH = 256
ROWS: dict[str, Tree] = {
    "conventional": {"mode": "conventional", "classifier": "FullSoftmax"},
    "semi-siamese": {
        "mode": {"semi_siamese": {"decay": 0.99}},
        "classifier": {"PrototypeQueue": {"size": 1024}},
        "data": {"sampler": {"ClassBalanced": {"images_per_class": 2}}},
    },
}


def shallow_faces(shared: Path, out: Path, part: float) -> Faces:
    """Two images of each of some people of LFW, and the pairs that show none of them.

    Args:
        shared: Folder with ``data/faces/lfw112.tar`` and ``data/faces/lfw_pairs.txt``.
        out: Where the lists are written.
        part: Of the people with two images or more, 0..1; who is chosen follows from the name.
    """
    root, pairs = (str(shared / "data" / "faces" / file) for file in ("lfw112.tar", "lfw_pairs.txt"))
    folder = ImageFolder(Path(root), min_images=2)
    chosen = [number for number, name in enumerate(folder.people) if zlib.crc32(name.encode()) / 2**32 < part]
    place = {number: label for label, number in enumerate(chosen)}
    taken = dict.fromkeys(chosen, 0)
    lines = []
    for index, number in enumerate(folder.labels.tolist()):
        if taken.get(number, 2) < 2:
            taken[number] += 1
            lines.append(f"{folder.name(index)} {place[number]}\n")
    listed = write_whole(out / f"two-of-{len(chosen)}.txt", "".join(lines))
    people = write_whole(out / f"people-{len(chosen)}.txt", "".join(f"{folder.people[one]}\n" for one in chosen))
    packed = out / f"two-of-{len(chosen)}-packed"
    if not packed.is_dir():  # so many epochs of the same images
        write_packed(packed, Resized(ImageList(Path(root), listed), SIZE, SIZE))
    source: Tree = {"source": {"Packed": {"path": str(packed)}}, "resize": True, "augment": CROPS}
    tested: Tree = {"LFW": {"LFW": {"root": root, "pairs": pairs, "exclude": str(people)}}}
    return Faces(f"lfw-two-of-{len(chosen)}", len(lines), source, tested, ("accuracy", "TAR@FAR=1e-2"))


def main(
    seeds: Seeds = 3,
    steps: Steps = 2250,
    part: Annotated[float, typer.Option(min=0.1, max=0.9, help="Of the people with two images, who trains.")] = 0.7,
    shared: Shared = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs and tables are written.")] = Path("runs/shallow-faces"),
    precision: Precision = "fp32",
    threads: Threads = 2,
) -> None:
    """Train what is not finished, then write and print the table of everything that is."""
    out.mkdir(parents=True, exist_ok=True)
    faces = shallow_faces(shared, out, part)
    common: Tree = {"backbone": BACKBONE, "head": COSFACE}
    options = {"seeds": seeds, "steps": steps, "threads": threads, "batch": BATCH}
    run_rows(ROWS, common, faces, **options, out=out, precision=precision, against="conventional")


if __name__ == "__main__":
    typer.run(main)
