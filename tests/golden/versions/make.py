"""Makes the small runs of this version that later versions must load, resume and compare: ``VERSION.tar.xz``.

    python tests/golden/versions/make.py [FOLDER]

Commands make them, because commands change least. What is in the archive:

- ``conventional.yaml``, ``adapted.yaml``, ``faces``, and ``scores.csv``, their quality: what was trained on what;
- ``conventional``, ``two_processes``, ``adapted``: runs that stopped in the middle of an epoch;
- ``conventional-end``, a folder, ``two_processes-end.safetensors`` and ``adapted-end.safetensors``: models to which the
  same runs came without a stop; the first is the base of ``adapted``;
- ``adapter.safetensors``: the adapters of ``adapted-end`` alone;
- ``report``: a test of ``conventional-end``;
- ``expected.npz``: four images, and the embeddings that each model gave;
- ``made_on.json``: the machine and the libraries.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

HERE = Path(__file__).resolve().parent
PEOPLE, PHOTOS = 6, 4
NETWORK = {"MobileFaceNet": {"width": 0.01, "depths": [1, 1, 1, 1], "feat_dim": 16}}
CONVENTIONAL = {
    "name": "conventional",
    "mode": {"conventional": {"ema": 0.5}},
    "backbone": NETWORK,
    "head": {"CurricularFace": {"margin": 0.2, "scale": 16}},
    "data": {"source": {"ImageFolder": {"root": "faces"}}, "size": 32, "workers": 1},
    "optimizer": {"lr": 0.002, "momentum": 0.9},  # small steps, so that other processors end nearby
    "training": {"epochs": 4, "batch_size": 12, "log_every": 2},
    "checkpoint": {"every_epochs": 1000},
    "tensorboard": False,
}
ADAPTED = {
    "extends": "conventional.yaml",
    "name": "adapted",
    "mode": {"adaptation": {"distillation": 0.5}},
    "backbone": None,
    "base": "conventional-end",
    "adapter": {"DualLoRA": {"rank": 2, "targets": ["*.expand.conv", "fc"], "kinds": ["linear", "conv"]}},
    "gate": {"learned": {}},
    "data": {"quality": "scores.csv"},
}
PAIRS = [f"SyntheticPairs.{word}" for word in ("identities=4", "per_identity=4", "folds=2", "pairs=16", "size=32")]
STOP_AT = 5  # of 8 updates, 2 an epoch

# Trains, and gets a signal right after an update.
STOPPED = f"""
import signal
from torch.optim.optimizer import register_optimizer_step_post_hook
from facelab.cli.main import main

steps = 0

def count(*_):
    global steps
    steps += 1
    if steps == {STOP_AT}:
        signal.raise_signal(signal.SIGTERM)

register_optimizer_step_post_hook(count)
main()
"""


def machine() -> dict[str, str]:
    """What the last bits of a run depend on."""
    info = Path("/proc/cpuinfo")
    names = {line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")}
    libraries = {"torch": torch.__version__, "numpy": np.__version__, "opencv": cv2.__version__}
    return {"processor": ", ".join(sorted(names)), "kernels": torch.backends.cpu.get_cpu_capability(), **libraries}


def run(folder: Path, *words: str, program: tuple[str, ...] = ("-m", "facelab"), ends_with: int = 0) -> None:
    """One command in a folder, its runs on one thread."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *program, *words], cwd=folder, env=environment, check=False)
    assert done.returncode == ends_with, f"{words} ended with {done.returncode}"


def train(folder: Path, name: str, config: str) -> None:
    """A run that stops, and the model of one that does not."""
    stopped = ("-c", STOPPED)
    run(folder, "train", config, "--run", name, program=stopped, ends_with=128 + signal.SIGTERM)
    run(folder, "train", config, "--run", f"{name}-whole")
    ending = "" if name == "conventional" else ".safetensors"  # a base is a folder
    run(folder, "export", f"{name}-whole", "--out", f"{name}-end{ending}")


def train_on_two(folder: Path) -> None:
    """The same on two processes, which may take 50 updates to agree on a stop; so it is cut at the end of an epoch."""
    name, more = "two_processes", ("training.epochs=2", "checkpoint.keep_every_epochs=1", "checkpoint.every_epochs=1")
    two = ("-m", "facelab.launch", "--standalone", "--nproc-per-node", "2", "-m", "facelab")
    run(folder, "train", "conventional.yaml", *more, "--run", name, program=two)
    run(folder, "export", name, "--out", f"{name}-end.safetensors")
    checkpoints = folder / name / "checkpoints"
    (checkpoints / "index.json").unlink()  # it is made anew
    shutil.rmtree(max(checkpoints.glob("step-*")))
    for path in (folder / name).glob("*.*"):
        if path.name.startswith(("report", "training")):
            path.unlink()


def draw_faces(folder: Path) -> None:
    """Training images as files, because drawing them again needs the same OpenCV."""
    from facelab.data.synthetic.source import SyntheticFaces

    faces = SyntheticFaces(identities=PEOPLE, per_identity=PHOTOS, size=32)
    for index, person in enumerate(faces.labels):
        (folder / f"{person}").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{person}" / f"{index}.png"), faces.read(index)[:, :, ::-1])


def embeddings(folder: Path) -> dict[str, np.ndarray]:
    """Four images and what each model makes of them."""
    import facelab

    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    quality = np.array([1.1, 1.5, 1.9, 3.2], np.float32)  # from the least to the most of `scores.csv`
    found = {"pixels": pixels, "quality": quality}
    for name in ("conventional", "conventional-end", "two_processes", "two_processes-end.safetensors"):
        found[name] = facelab.load(folder / name).embed(pixels)
    for name in ("adapted", "adapted-end.safetensors"):
        found[name] = facelab.load(folder / name).embed(pixels, quality=quality)
    with_file = facelab.load(folder / "conventional-end", adapter=folder / "adapter.safetensors")
    found["adapter.safetensors"] = with_file.embed(pixels, quality=quality)
    return found


def make(folder: Path) -> None:
    """All runs and files."""
    (folder / "conventional.yaml").write_text(yaml.safe_dump(CONVENTIONAL, sort_keys=False))
    (folder / "adapted.yaml").write_text(yaml.safe_dump(ADAPTED, sort_keys=False))
    draw_faces(folder / "faces")
    run(folder, "iqa", "score", "faces", "--scorer", "Sharpness", "--out", "scores.csv")
    train(folder, "conventional", "conventional.yaml")
    train(folder, "adapted", "adapted.yaml")
    train_on_two(folder)
    run(folder, "export-adapter", "adapted-whole", "--out", "adapter.safetensors")
    run(folder, "test", "conventional-end", *PAIRS, "--out", "report")
    for path in (folder / "report").glob("report.[!j]*"):
        path.unlink()
    for whole in folder.glob("*-whole"):
        shutil.rmtree(whole)
    np.savez_compressed(folder / "expected.npz", **embeddings(folder))
    (folder / "made_on.json").write_text(json.dumps(machine(), indent=1))


def main() -> None:
    """Write the archive of this version."""
    from facelab.version import __version__

    target = (Path(sys.argv[1]) if len(sys.argv) > 1 else HERE) / f"{__version__}.tar.xz"
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        with tarfile.open(target, "x:xz") as archive:
            for path in sorted(Path(name).iterdir()):
                archive.add(path, path.name)


if __name__ == "__main__":
    main()
