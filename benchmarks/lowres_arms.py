"""The arms of `lowres_adaptation`, and how one of them is trained and embeds images."""

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
from facelab.face_model import load_backbone
from facelab.head.classifier import FullSoftmax
from facelab.head.cosface import CosFace
from facelab.inputs import normalise
from facelab.training_mode.adaptation.mode import Adaptation

Array = NDArray[Any]
RANK, MARGIN, BATCH, EMBEDDED_AT_ONCE = 8, 0.3, 48, 64
ROW_IMAGES, CLASS_RATE = 4, 2e-3
SINGLE = {"LoRA": {"rank": 2 * RANK}}
DUAL = {"DualLoRA": {"rank": RANK}}
LOW = {"DualLoRA": {"rank": 2 * RANK, "experts": "low"}}
SHARP = {"linear": {"tau": 0.5, "temperature": 0.01}}
"""A gate that is exactly 0 or 1 for the perfect score."""


@dataclass(frozen=True)
class Arm:
    """One way to adapt.

    Attributes:
        adapter: Name and options; None is the frozen base.
        scorer: Which quality the gate sees; ``Perfect`` knows the truth.
        gate: Name and options.
        distillation: Weight of the loss that keeps high-quality embeddings in place.
        rate: Greatest learning rate of the network; that of class rows is `CLASS_RATE` in every arm.
    """

    adapter: dict[str, dict[str, Any]] | None
    scorer: str = "Perfect"
    gate: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(SHARP))
    distillation: float = 0.0
    rate: float = 2e-3


SIGMOID: dict[str, dict[str, Any]] = {"sigmoid": {}}
BEST = "EffectiveResolution"
ARMS = {
    "frozen": Arm(None),
    "full": Arm({"Full": {}}, rate=3e-4),
    "single": Arm(SINGLE),
    "dual": Arm(DUAL),
    "gated single": Arm(LOW),
    "dual, distilled": Arm(DUAL, distillation=10.0),
    "single, distilled": Arm(SINGLE, distillation=10.0),
    "gated single, linear": Arm(LOW, BEST, {"linear": {}}),
    "gated single, sigmoid": Arm(LOW, BEST, SIGMOID),
    "gated single, learned": Arm(LOW, BEST, {"learned": {}}),
    "gated single, compat": Arm(LOW, "Perfect", {"compat": {}}),
    "gated single, BRISQUE": Arm(LOW, "BRISQUE", SIGMOID),
    "gated single, CNNIQA": Arm(LOW, "CNNIQA", SIGMOID),
    "gated single, FeatureNorm": Arm(LOW, "FeatureNorm", SIGMOID),
    "gated single, Sharpness": Arm(LOW, "Sharpness", SIGMOID),
}


def train(arm: Arm, faces: Faces, weights: Path, steps: int, seed: int) -> tuple[Backbone, int]:
    """The adapted network, and how many of its parameters were trained."""
    torch.manual_seed(seed)
    base = load_backbone("EdgeFace-XXS", weights, device="cpu").network
    if arm.adapter is None:
        return base.eval(), 0
    ((name, options),) = arm.adapter.items()
    adapter, gate = ADAPTERS.build(name, options), _gate(arm, faces)
    rows = class_means(base.eval(), faces.train)
    network = AdaptedBackbone(base, adapter, gate if adapter.needs_gate else None)
    classifier = FullSoftmax(len(rows), network.feat_dim, CosFace(MARGIN))
    classifier.weight.data.copy_(rows)
    _descend(Adaptation(network, classifier, gate, arm.distillation), arm, faces.train, steps, seed)
    return network.eval(), network.count().trainable


def _gate(arm: Arm, faces: Faces) -> Gate:
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
    """Half of each batch is in high resolution, half in low; half of the images are mirrored."""
    random = np.random.default_rng(seed)
    half = len(images.person) // 2
    network = [one for one in mode.network.parameters() if one.requires_grad]
    groups = [{"params": network}, {"params": [*mode.classifier.parameters()], "lr": CLASS_RATE, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arm.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [arm.rate, CLASS_RATE], total_steps=steps, pct_start=0.1)
    mode.network.train()
    for _ in range(steps):
        rows = np.concatenate([random.integers(half, size=BATCH // 2), half + random.integers(half, size=BATCH // 2)])
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
    parts = []
    for start in range(0, len(images.person), EMBEDDED_AT_ONCE):
        batch = images.batch(np.arange(start, min(start + EMBEDDED_AT_ONCE, len(images.person))))
        quality = (batch.quality,) if network.needs_quality else ()
        parts.append(network(normalise(batch.image, network.input_spec), *quality))
    return torch.cat(parts).float().numpy()
