"""The arms of `lowres_adaptation`, and how one of them is trained and embeds images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lowres_faces import Faces, Images
from numpy.typing import NDArray
from torch.nn import functional as F

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import GATES, Gate
from facelab.backbone.base import Backbone
from facelab.inputs import InputSpec, normalise
from facelab.model.face_model import load_backbone
from facelab.training_mode.adaptation.mode import Adaptation
from facelab.training_mode.base import Supplies

Array = NDArray[Any]
SCORED = ("EffectiveResolution", "BRISQUE", "CNNIQA", "FeatureNorm", "Sharpness")
RANK, MARGIN, BATCH, EMBEDDED_AT_ONCE = 8, 0.3, 48, 64
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
    rate: float = 2e-3


FULL_RATE = 3e-4
SILENT = "silent, two spaces"


def _tested(scorer: str, gate: dict[str, dict[str, Any]] = SIGMOID) -> Arm:
    """The network of `SILENT`, tested by another scorer or gate."""
    return Arm(LOW_CROSSED, scorer, gate, alignment=1.0, two_spaces=True, network=SILENT)


ARMS = {
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
    "silent, linear": _tested("Perfect", {"linear": {}}),
    "silent, compat": _tested("Perfect", {"compat": {}}),
    "silent, tau 0.25": _tested("Perfect", {"sigmoid": {"tau": 0.25}}),
    "silent, tau 0.75": _tested("Perfect", {"sigmoid": {"tau": 0.75}}),
    **{f"silent, {scorer}": _tested(scorer) for scorer in SCORED},
    **{f"silent, {scorer}, linear": _tested(scorer, {"linear": {}}) for scorer in ("BRISQUE", "Sharpness")},
    **{
        f"silent, rank {rank}": Arm(
            {"DualLoRA": {**LOW_CROSSED["DualLoRA"], "rank": rank}}, gate=SIGMOID, alignment=1.0, two_spaces=True
        )
        for rank in (4, 8)
    },
}


def train(arm: Arm, faces: Faces, weights: Path, steps: int, seed: int) -> tuple[Backbone, int]:
    """The adapted network, and how many of its parameters were trained. Low and high images are told apart as they are.

    Args:
        arm: What to train.
        faces: With the perfect score.
        weights: Those of the base.
        steps: How many.
        seed: Chooses all random numbers.
    """
    torch.manual_seed(seed)
    base = load_backbone("EdgeFace-XXS", weights, device="cpu").network
    if arm.adapter is None:
        return base.eval(), 0
    ((name, options),) = arm.adapter.items()
    adapter, gate = ADAPTERS.build(name, options), gate_of(arm, faces)
    rows = class_means(base.eval(), faces.train)
    network = AdaptedBackbone(base, adapter, gate if adapter.needs_gate else None)
    supplies = Supplies(network, len(rows), {"CosFace": {"margin": MARGIN}})
    mode = Adaptation(supplies, gate, arm.distillation, arm.alignment)
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
    for _ in range(steps):
        high = random.integers(half, size=BATCH // 2 if arm.replay else BATCH)
        rows = np.concatenate([high, half + high]) if arm.replay else half + high
        batch = images.batch(rows)
        mirrored = torch.from_numpy(random.random(BATCH) < 0.5)
        batch.image[mirrored] = batch.image[mirrored].flip(3)
        loss = mode.step(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def embed(network: Backbone, images: Images) -> Array:
    """Raw embeddings, float32, (N, D)."""
    return _over(images, network.input_spec, lambda image, quality: _own(network, image, quality))


@torch.inference_mode()
def embed_in_spaces(network: Backbone, images: Images, two_spaces: bool) -> Array:
    """Unit embeddings in both spaces, float32, (N, 2, D); twice the same where there is one space."""
    if two_spaces and isinstance(network, AdaptedBackbone):
        return _over(images, network.input_spec, lambda image, _: _both(network, image))
    unit = F.normalize(torch.from_numpy(embed(network, images)), dim=1).numpy()
    return np.stack([unit, unit], axis=1)


def _both(network: AdaptedBackbone, image: torch.Tensor) -> torch.Tensor:
    spaces = [network.with_gate(image, image.new_full((len(image),), gate)) for gate in (0.0, 1.0)]
    return F.normalize(torch.stack(spaces, dim=1), dim=2)


def _own(network: Backbone, image: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    embedding: torch.Tensor = network(image, quality) if network.needs_quality else network(image)
    return embedding


def _over(images: Images, spec: InputSpec, forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Array:
    parts = []
    for start in range(0, len(images.person), EMBEDDED_AT_ONCE):
        batch = images.batch(np.arange(start, min(start + EMBEDDED_AT_ONCE, len(images.person))))
        if batch.quality is not None:
            parts.append(forward(normalise(batch.image, spec), batch.quality))
    return torch.cat(parts).float().numpy()
