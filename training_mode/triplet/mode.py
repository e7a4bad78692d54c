"""Metric learning: images of one person near each other, those of others apart."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from facelab import distributed
from facelab.citation import Citation
from facelab.data.base import Batch, Labels
from facelab.engine.loop import StepOutput
from facelab.engine.replica import Replica
from facelab.errors import ConfigError, in_range
from facelab.head.classifier import Classifier
from facelab.training_mode.base import MODES, Supplies, TrainingMode
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective
from facelab.training_mode.triplet.objectives.triplet import TripletLoss
from facelab.training_mode.weighted import weighted


@MODES.register("triplet")
class Triplet(TrainingMode):
    """Losses over the images of a batch, beside the classification loss of the settings or, with no classifier, alone.

    Objectives see the images of all processes. Pairs of one person need a sampler that draws several images of each:
    ``data.sampler: {ClassBalanced: {images_per_class: 4}}``.

    Args:
        supplies: The network, and the settings' classifier if there is one.
        losses: Weights of objectives by name, see `OBJECTIVES`.
        classification: Weight of the classification loss, from 0.

    Raises:
        ConfigError: If there is no loss, or the only one would draw all people to one point.
    """

    citation: ClassVar[Citation | None] = TripletLoss.citation

    def __init__(
        self,
        supplies: Supplies,
        losses: dict[str, float | dict[str, Any] | None] | None = None,
        classification: float = 1.0,
    ) -> None:
        super().__init__(supplies)
        self.classification = in_range("triplet classification", classification, 0.0, math.inf, high_open=True)
        self.classifier = None if supplies.classifier is None else supplies.build_classifier()
        options = weighted("triplet", OBJECTIVES, {"Triplet": 1.0} if losses is None else losses)
        _check(list(options), classified=self.classifier is not None and classification > 0)
        device = next(supplies.backbone.parameters()).device
        given: dict[str, Any] = {"num_classes": supplies.num_classes, "feat_dim": supplies.backbone.feat_dim}
        built = {name: OBJECTIVES.build(name, own, **given, seed=supplies.seed) for name, (_, own) in options.items()}
        self.weights = {name: weight for name, (weight, _) in options.items()}
        self.objectives: dict[str, Replica[Objective]] = {
            name: supplies.replicate(objective.to(device)) for name, objective in built.items()
        }

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Its losses look at no scores; a network that takes them gets them."""
        return False

    def host_work(self) -> str:
        """The choice of pairs."""
        return "pairs and triplets of a batch are counted there"

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch; ``nearest`` is how often the nearest other image is of the same person."""
        own = self.embed(batch).float()
        metrics: dict[str, Tensor] = {}
        loss = own.new_zeros(())
        with torch.autocast(own.device.type, enabled=False):
            if self.classifier is not None and self.classification:
                output = self.classifier(own, batch.label)
                loss, metrics = self.classification * output.loss, dict(output.metrics)
            embedding = distributed.use_commonly(distributed.gather_rows(own))
            label = distributed.gather_labels(batch.label)
            for name, objective in self.objectives.items():
                value = objective(embedding, label)
                loss, metrics[name] = loss + self.weights[name] * value, value.detach()
        return StepOutput(loss, {**metrics, "nearest": _nearest(embedding.detach(), label)})

    def networks(self) -> Mapping[str, nn.Module]:
        """The network, and objectives that learn or remember something equal on all processes."""
        kept = {name: one.network for name, one in self.objectives.items() if one.network.row_owner() is None}
        return {**super().networks(), **{name: one for name, one in kept.items() if one.state_dict()}}

    def replicas(self) -> Iterable[Replica[Any]]:
        """The network, and objectives that learn something."""
        learning = (one for one in self.objectives.values() if any(True for _ in one.network.parameters()))
        return [*super().replicas(), *learning]

    def row_owners(self) -> Mapping[str, Classifier]:
        """That of the settings, if there is one, and those of the objectives under their names."""
        owners = {name: one.network.row_owner() for name, one in self.objectives.items()}
        found = {name: owner for name, owner in owners.items() if owner is not None}
        return found if self.classifier is None else {"classifier": self.classifier, **found}

    def check_batches(
        self, parts: Iterable[NDArray[np.int64]], labels: Labels, quality: NDArray[np.float32] | None
    ) -> None:
        """Refuse batches in which hardly anybody comes twice."""
        if not any(one.network.needs_pairs for one in self.objectives.values()):
            return
        drawn = [labels[rows] for rows in parts]
        world = distributed.world_size()
        batches = [np.concatenate(drawn[start : start + world]) for start in range(0, len(drawn), world)]
        pairs = sum(int((counts * (counts - 1) // 2).sum()) for counts in map(_counts, batches))
        if pairs < len(batches):
            raise ConfigError(
                f"the mode triplet compares images of one person, but the first {len(batches)} batches hold only "
                f"{pairs} such pairs; draw several images of each person: "
                "data.sampler: {ClassBalanced: {images_per_class: 4}}."
            )


def _counts(labels: Labels) -> NDArray[np.int64]:
    return np.unique(labels, return_counts=True)[1]


def _nearest(embedding: Tensor, label: Tensor) -> Tensor:
    """Share of the images whose nearest other image (B, D) is of the same class (B,), ()."""
    unit = F.normalize(embedding)
    cosine = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return (label[cosine.argmax(dim=1)] == label).float().mean()


def _check(names: list[str], *, classified: bool) -> None:
    """Refuse losses that teach nothing.

    Raises:
        ConfigError: If so; says what would work.
    """
    if not names and not classified:
        raise ConfigError("the mode triplet has no loss; name one, for example losses: {Triplet: 1}.")
    if names == ["Center"] and not classified:
        raise ConfigError(
            "Center alone draws all people to one point; add a loss that keeps them apart, such as Triplet, or a "
            "classifier with a head."
        )
