"""The arms of `lowres_adaptation`, and how one of them is trained and embeds images."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lowres_bases import ADAPTED, EDGEFACE
from lowres_faces import PERFECT, Faces, Images
from numpy.typing import NDArray
from torch.nn import functional as F

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import GATES, Gate
from facelab.backbone.base import Backbone
from facelab.data.transforms.low_resolution import Recipe
from facelab.inputs import normalise
from facelab.training_mode.adaptation.mode import Adaptation
from facelab.training_mode.base import Supplies

Array = NDArray[Any]
Size = Literal["", "average", "PCA"]
SCORED = ("EffectiveResolution", "BRISQUE", "CNNIQA", "FeatureNorm", "Sharpness")
RANK, MARGIN, BATCH, EMBEDDED_AT_ONCE = 8, 0.3, 48, 256
ROW_IMAGES, CLASS_RATE = 4, 2e-3
SINGLE = {"LoRA": {"rank": 2 * RANK}}
DUAL = {"DualLoRA": {"rank": RANK}}
LOW = {"DualLoRA": {"rank": 2 * RANK, "experts": "low"}}
DUAL_CROSSED = {"DualLoRA": {"rank": RANK, "crossing": 2 / 3}}
LOW_CROSSED = {"DualLoRA": {"rank": 2 * RANK, "experts": "low", "crossing": 1.0}}
SHARP: dict[str, dict[str, Any]] = {"linear": {"tau": 0.5, "temperature": 0.01}}
"""A gate that is exactly 0 or 1 for the perfect score."""
SIGMOID: dict[str, dict[str, Any]] = {"sigmoid": {}}


@dataclass(frozen=True)
class Arm:
    """One way to adapt.

    Attributes:
        adapter: Name and options; None is the frozen base.
        scorer: Which quality the gate sees in the test; ``Perfect`` knows the truth, and is what training sees.
        gate: Name and options.
        replay: Whether half of each batch is in high resolution; else all of it is low.
        distillation: Weight of the loss that keeps high-quality embeddings in place.
        alignment: Weight of the loss across qualities.
        two_spaces: Whether an embedding joins both experts' spaces.
        network: Name of the arm whose trained network this one only tests otherwise; empty for its own.
        flipped: Whether the mirrored image is embedded too, as costs as much as two spaces; their sum is compared.
        size: How two spaces become one embedding of the usual length: ``average`` adds them instead of setting them
            side by side, ``PCA`` projects it on the main axes of the training images; empty for twice that length.
        rate: Greatest learning rate of the network; that of class rows is `CLASS_RATE` in every arm.
    """

    adapter: dict[str, dict[str, Any]] | None
    scorer: str = "Perfect"
    gate: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(SHARP))
    replay: bool = True
    distillation: float = 0.0
    alignment: float = 0.0
    two_spaces: bool = False
    network: str = ""
    flipped: bool = False
    size: Size = ""
    rate: float = 2e-3


FULL_RATE = 3e-4
SILENT = "silent, two spaces"
FLIPPED = ("frozen", "full", "single", "single, no replay", "single, aligned")
SIZES: tuple[Size, ...] = ("average", "PCA")


def _tested(scorer: str, gate: dict[str, dict[str, Any]] = SIGMOID, size: Size = "") -> Arm:
    """The network of `SILENT`, tested by another scorer or gate."""
    return Arm(LOW_CROSSED, scorer, gate, alignment=1.0, two_spaces=True, network=SILENT, size=size)


OWN = {
    "frozen": Arm(None),
    "full": Arm({"Full": {}}, rate=FULL_RATE),
    "single": Arm(SINGLE),
    "dual": Arm(DUAL),
    "gated single": Arm(LOW),
    "full, aligned": Arm({"Full": {}}, alignment=1.0, rate=FULL_RATE),
    "single, aligned": Arm(SINGLE, alignment=1.0),
    "dual, two spaces": Arm(DUAL_CROSSED, gate=SIGMOID, alignment=1.0, two_spaces=True),
    SILENT: Arm(LOW_CROSSED, gate=SIGMOID, alignment=1.0, two_spaces=True),
    "single, no replay": Arm(SINGLE, replay=False),
    "single, distilled": Arm(SINGLE, distillation=10.0),
    "dual, learned gate": Arm(DUAL_CROSSED, gate={"learned": {}}, alignment=1.0, two_spaces=True),
    **{
        f"silent, rank {rank}": Arm(
            {"DualLoRA": {**LOW_CROSSED["DualLoRA"], "rank": rank}}, gate=SIGMOID, alignment=1.0, two_spaces=True
        )
        for rank in (4, 8)
    },
}
"""Arms with a network of their own."""
OTHERWISE = {
    **{f"{name}, flipped": replace(OWN[name], network=name, flipped=True) for name in FLIPPED},
    "silent, linear": _tested("Perfect", {"linear": {}}),
    "silent, compat": _tested("Perfect", {"compat": {}}),
    "silent, tau 0.25": _tested("Perfect", {"sigmoid": {"tau": 0.25}}),
    "silent, tau 0.75": _tested("Perfect", {"sigmoid": {"tau": 0.75}}),
    **{f"silent, {scorer}": _tested(scorer) for scorer in SCORED},
    **{f"silent, {scorer}, linear": _tested(scorer, {"linear": {}}) for scorer in ("BRISQUE", "Sharpness")},
    **{f"silent, BRISQUE, {size}": _tested("BRISQUE", size=size) for size in SIZES},
    **{f"silent, {scorer}, average": _tested(scorer, size="average") for scorer in ("CNNIQA", "Sharpness", PERFECT)},
}
"""Arms that test the network of another one otherwise."""
ARMS = OWN | OTHERWISE


@dataclass(frozen=True)
class Setting:
    """What a run has beside its arm and its seed.

    Attributes:
        train_recipe: How low versions of the training images are made.
        base: The network that is adapted, see `lowres_bases.open_base`; only the last part of a path.
        split: Chooses who trains.
        steps: How many.
    """

    train_recipe: Recipe = "camera"
    base: str = EDGEFACE
    split: int = 0
    steps: int = 160

    def of(self, arm: str) -> "Setting":
        """The same for an arm; the frozen base is the same however others are trained."""
        return self if ARMS[arm].adapter else replace(self, train_recipe="camera", steps=0)

    def stem(self, arm: str, seed: int) -> str:
        """Name of the files of a run."""
        own = self.of(arm)
        parts = (arm.replace(", ", "-"), own.base, own.split, own.train_recipe, own.steps, seed)
        return "_".join(str(part).replace(" ", "-") for part in parts)


def train(arm: Arm, faces: Faces, base: Backbone, steps: int, seed: int, device: torch.device) -> tuple[Backbone, int]:
    """The adapted network, and how many of its parameters were trained. Low and high images are told apart as they are.

    Args:
        arm: What to train.
        faces: With the perfect score.
        base: The network, which is changed.
        steps: How many.
        seed: Chooses all random numbers.
        device: Where it is trained.
    """
    torch.manual_seed(seed)
    base = base.to(device)
    if arm.adapter is None:
        return base.eval(), 0
    ((name, options),) = arm.adapter.items()
    kinds = {"kinds": ADAPTED[type(base)]} if type(base) in ADAPTED and name != "Full" else {}
    adapter, gate = ADAPTERS.build(name, {**kinds, **options}), gate_of(arm, faces).to(device)
    rows = class_means(base.eval(), faces.train)
    network = AdaptedBackbone(base, adapter, gate if adapter.needs_gate else None)
    supplies = Supplies(network, len(rows), {"CosFace": {"margin": MARGIN}})
    mode = Adaptation(supplies, gate, arm.distillation, arm.alignment)
    for module in mode.networks().values():
        module.to(device)
    mode.classifier.to(device)
    mode.classifier.row_tensors()["weight"].data.copy_(rows)
    _descend(mode, arm, faces.train, steps, seed)
    return network.eval(), network.count().trainable


def gate_of(arm: Arm, faces: Faces) -> Gate:
    """Its gate, calibrated on the scores of the training images."""
    ((name, options),) = arm.gate.items()
    gate = GATES.build(name, options)
    gate.calibrate(faces.train.quality, faces.card)
    return gate


def class_means(base: Backbone, images: Images) -> torch.Tensor:
    """Unit mean of the base's embeddings of each person's first high-resolution images, where the class rows start."""
    high = np.flatnonzero(images.high)
    number = np.arange(len(high)) - np.searchsorted(images.person[high], images.person[high])
    taken = images.part(high[number < ROW_IMAGES])
    unit, person = F.normalize(torch.from_numpy(embed(base, taken))), torch.from_numpy(taken.person)
    return F.normalize(torch.zeros(int(person.max()) + 1, unit.shape[1]).index_add_(0, person, unit))


def _descend(mode: Adaptation, arm: Arm, images: Images, steps: int, seed: int) -> None:
    """Half of each batch is in high resolution, the other half the same images in low; half of all are mirrored.

    Without replay all of a batch are in low resolution.
    """
    random = np.random.default_rng(seed)
    half = len(images.person) // 2
    network = [one for one in mode.network.parameters() if one.requires_grad]
    groups = [{"params": network}, {"params": [*mode.classifier.parameters()], "lr": CLASS_RATE, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arm.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [arm.rate, CLASS_RATE], total_steps=steps, pct_start=0.1)
    # A loaded base comes in evaluation mode, in which dropout is off.
    mode.network.train()
    device = next(iter(network)).device
    for _ in range(steps):
        high = random.integers(half, size=BATCH // 2 if arm.replay else BATCH)
        rows = np.concatenate([high, half + high]) if arm.replay else half + high
        batch = images.batch(rows, device)
        mirrored = torch.from_numpy(random.random(BATCH) < 0.5).to(device)
        batch.image[mirrored] = batch.image[mirrored].flip(3)
        loss = mode.step(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def embed(network: Backbone, images: Images) -> Array:
    """Raw embeddings, float32, (N, D)."""
    return _over(images, network, partial(_own, network))


@torch.inference_mode()
def embed_twice(network: Backbone, images: Images, two_spaces: bool) -> Array:
    """Unit embeddings of two passes, float32, (N, 2, D): those in the low and in the high space.

    Where there is one space: those of the images, and of the images with their mirrored twins.
    """
    if two_spaces and isinstance(network, AdaptedBackbone):
        return _over(images, network, lambda image, _: _both(network, image))
    return _over(images, network, partial(_with_mirrored, network))


def _both(network: AdaptedBackbone, image: torch.Tensor) -> torch.Tensor:
    spaces = [network.with_gate(image, image.new_full((len(image),), gate)) for gate in (0.0, 1.0)]
    return F.normalize(torch.stack(spaces, dim=1), dim=2)


def _with_mirrored(network: Backbone, image: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    own = _own(network, image, quality)
    return F.normalize(torch.stack([own, own + _own(network, image.flip(3), quality)], dim=1), dim=2)


def _own(network: Backbone, image: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    embedding: torch.Tensor = network(image, quality) if network.needs_quality else network(image)
    return embedding


def _over(images: Images, network: Backbone, forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Array:
    parts, device = [], next(network.parameters()).device
    for start in range(0, len(images.person), EMBEDDED_AT_ONCE):
        batch = images.batch(np.arange(start, min(start + EMBEDDED_AT_ONCE, len(images.person))), device)
        if batch.quality is not None:
            parts.append(forward(normalise(batch.image, network.input_spec), batch.quality).float().cpu())
    return torch.cat(parts).numpy()
