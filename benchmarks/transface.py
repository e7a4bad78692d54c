"""Does TransFace's recipe pay? The article's comparisons at a small scale: a narrow ViT on the same faces, some seeds.

Arms: the ViT alone, with its gate, with DPAP, with EHSM, and with both; other augmentations (Mixup, CutMix, a random
rectangle erased) and other weights of samples (Focal, OHEM, ATk, MV-Softmax) on the gated network; 3, 7 and 15 patches;
EHSM with the paper's entropy and with its gradient. Drawn faces are tested whole and with the upper half covered; the
mean entropy of tokens in training is drawn for the arms of the mode. What is finished is not run again.

    python benchmarks/transface.py --seeds 3 --steps 400
    python benchmarks/transface.py --data lfw --shared ../shared --only gate --only both
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from torch import Tensor
from zoo_runs import SIZE, DataName, Faces, Precision, Seeds, Shared, Steps, Threads, open_faces, pyplot, run_rows

from facelab.config import Tree
from facelab.data.base import Batch, ImageSet, Pixels
from facelab.data.synthetic.source import synthetic_pairs
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.rows import on_device
from facelab.engine.loop import StepOutput
from facelab.errors import one_of
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.metrics.pair_scores import Rules
from facelab.test_protocol.protocols.verification import Verification
from facelab.training_mode.base import MODES, Supplies
from facelab.training_mode.conventional.mode import Conventional

NETWORK: Tree = {
    "patch": 8, "dim": 96, "depth": 4, "heads": 4, "feat_dim": 128, "mask_ratio": 0, "drop_path_rate": 0.05,
}  # fmt: skip
GREY = 127


class Covered(ImageSet):
    """Another set's images with the upper half grey."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """The covered image."""
        pixels = self.images.read(index).copy()
        pixels[: len(pixels) // 2] = GREY
        return pixels

    def location(self, index: int) -> str:
        """Where the original lies."""
        return self.images.location(index)

    def fingerprint(self) -> str:
        """That of the originals, covered."""
        return f"{self.images.fingerprint()}-upper-half"


@PROTOCOLS.register("CoveredPairs")
class CoveredPairs(Verification):
    """Verification of drawn faces with the upper half covered."""

    def __init__(self, identities: int = 200, per_identity: int = 5, pairs: int = 4000, size: int = SIZE) -> None:
        images, rows, same, fold = synthetic_pairs(identities, per_identity, 10, pairs, 0, size)
        super().__init__("CoveredPairs", Covered(images), rows, same, fold, Rules())


@MODES.register("mixed")
class Mixed(Conventional):
    """Mixup (Zhang et al., ICLR 2018) or CutMix (Yun et al., ICCV 2019): two images in one, the loss by their shares.

    Args:
        supplies: The network, and the settings' classifier with its head.
        mixing: Which.
        probability: Of an image to be mixed with another of the batch; shares are even from 0 to 1.
    """

    def __init__(
        self, supplies: Supplies, mixing: Literal["mixup", "cutmix"] = "mixup", probability: float = 0.5
    ) -> None:
        super().__init__(supplies)
        self.mixing, self.probability = mixing, probability

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch."""
        assert batch.draws is not None
        draw = Draws(batch.draws, "mixed")
        partner = on_device((draw("partner") * batch.size).astype(np.int64), batch.image)
        share = np.where(draw("chosen") < self.probability, draw("share"), 0.0)
        if self.mixing == "mixup":
            image, shares = _mixup(batch.image, partner, on_device(share.astype(np.float32), batch.image))
        else:
            image, shares = _cutmix(batch.image, partner, draw, share)
        embedding = self.embed(replace(batch, image=image))
        own = self.classifier(embedding, batch.label, 1.0 - shares)
        other = self.classifier(embedding, batch.label[partner], shares)
        return StepOutput(own.loss + other.loss, own.metrics)


def _mixup(image: Tensor, partner: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Mixed images, and the share of the other image in each, (B,)."""
    mixed = torch.lerp(image.float(), image[partner].float(), share[:, None, None, None])
    return mixed.round_().to(torch.uint8), share


def _cutmix(image: Tensor, partner: Tensor, draw: Draws, share: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images with a rectangle of another, and its area in each, (B,)."""
    inside = []
    for name, size in (("y", image.shape[2]), ("x", image.shape[3])):
        length = np.rint(size * np.sqrt(share))
        start = np.floor(draw(name) * (size - length + 1))
        pixel = np.arange(size)
        inside.append((pixel >= start[:, None]) & (pixel < (start + length)[:, None]))
    mask = on_device(inside[0][:, None, :, None] & inside[1][:, None, None, :], image)
    return torch.where(mask, image[partner], image), mask.float().mean(dim=(1, 2, 3))


def arms() -> dict[str, Tree]:
    """What each arm changes in the settings of a run."""
    gated = {"ViT": {**NETWORK, "patch_gate": True}}

    def mode(patches: int = 0, **options: object) -> Tree:
        dpap = {"patches": patches} if patches else {"probability": 0.0}
        return {"backbone": gated, "mode": {"transface": {"entropy": None, **dpap, **options}}}

    return {
        "ViT": {"backbone": {"ViT": NETWORK}, "mode": "conventional"},
        "gate": mode(),
        "DPAP": mode(7),
        "DPAP-fresh": mode(7, ranking="fresh"),
        "EHSM": mode(entropy="deviation"),
        "both": mode(7, entropy="deviation"),
        "both-fresh": mode(7, ranking="fresh", entropy="deviation"),
        "K3": mode(3, entropy="deviation"),
        "K15": mode(15, entropy="deviation"),
        "EHSM-gaussian": mode(entropy="gaussian"),
        "EHSM-gradient": mode(entropy="gaussian", entropy_gradient=True),
        "erase": {**mode(), "data": {"augment": {"erase": {"probability": 0.2}}}},
        "Mixup": {"backbone": gated, "mode": {"mixed": {"mixing": "mixup"}}},
        "CutMix": {"backbone": gated, "mode": {"mixed": {"mixing": "cutmix"}}},
        "Focal": {**mode(), "sample_weight": "Focal"},
        "OHEM": {**mode(), "sample_weight": "OHEM"},
        "ATk": {**mode(), "sample_weight": {"ATk": {"k": 48}}},
        "MV-Softmax": {**mode(), "head": {"MV-Softmax": {"scale": 16}}},
    }


def with_covered_faces(faces: Faces) -> Faces:
    """The same, and drawn faces tested with the upper half covered too."""
    if faces.name != "synthetic":
        return faces
    return replace(faces, protocols={**faces.protocols, "upper half covered": {"CoveredPairs": {}}})


def plot_entropy(folder: Path, path: Path) -> None:
    """Mean entropy of tokens over training, first seed of each arm that logs it."""
    figure = pyplot.figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=pyplot.colormaps["tab20"].colors)
    for log in sorted(folder.glob("*-0/metrics.jsonl")):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        points = [(line["update"], line["token_entropy"]) for line in lines if "token_entropy" in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=log.parent.name.removesuffix("-0"))
    axes.set_xlabel("update")
    axes.set_ylabel("mean entropy of tokens, nats")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def main(
    seeds: Seeds = 3,
    steps: Steps = 400,
    only: Annotated[list[str] | None, typer.Option(help="Name of an arm; repeatable. All arms.")] = None,
    data: DataName = "synthetic",
    shared: Shared = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Where runs and tables are written.")] = Path("runs/transface-arms"),
    precision: Precision = "fp32",
    threads: Threads = 2,
) -> None:
    """Train what is not finished, then write and print the table of everything that is."""
    known = arms()
    rows = {name: known[one_of("arm", name, list(known))] for name in only or known}
    faces = with_covered_faces(open_faces(data, shared, out))
    common: Tree = {
        "head": {"CosFace": {"margin": 0.2, "scale": 16}},
        "optimizer": {"name": "adamw", "lr": 1e-3, "class_lr": 1e-2, "weight_decay": 0.1},
    }
    options = {"seeds": seeds, "steps": steps, "threads": threads}
    run_rows(rows, common, faces, **options, out=out, precision=precision, against="gate")
    for folder in out.glob(f"{faces.name}-*-{precision}"):
        plot_entropy(folder, folder / "comparison" / "entropy.png")


if __name__ == "__main__":
    typer.run(main)
