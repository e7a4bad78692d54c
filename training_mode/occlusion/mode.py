"""Training against occlusion: what is hard to do without is dropped, and what is hidden is told apart."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.layers.recompute import running_statistics_kept
from facelab.citation import Citation
from facelab.data.base import Batch
from facelab.data.transforms.augment import View
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.rows import on_device
from facelab.engine.loop import StepOutput
from facelab.engine.replica import Replica
from facelab.errors import ConfigError, in_range
from facelab.head.margin_loss import ClassifierOutput
from facelab.training_mode.base import MODES, Supplies
from facelab.training_mode.conventional.mode import Conventional
from facelab.training_mode.occlusion.cells import CellNumbers
from facelab.training_mode.occlusion.generator import (
    ChanceScores,
    Generator,
    MaskGenerator,
    drop_highest,
    reversed_gradient,
    rows_marked,
)
from facelab.training_mode.occlusion.place import FeaturePlace


@MODES.register("occlusion")
class Occlusion(Conventional):
    """Adversarial occlusion for recognition, after AOFD (Chen et al., arXiv:1709.05188), a detector of hidden faces.

    Each image is embedded twice: clean, and as the transforms hide parts of it, with cells of a feature map dropped as
    well. Both are classified, and the second embedding is held near the first. Which cells are dropped is chosen by a
    small network that wants these losses to be high, under a limit of the area, or by chance. Another one
    learns from the same features which of the cells are hidden by an object. Neither is exported.

    Departures: AOFD masks the features of regions that a detector proposes; A-Fast-RCNN's way to begin, by imitating
    the worst of some fixed masks, is left out. BatchNorm's running statistics follow the clean images alone, whose
    features nobody drops in a test.

    Args:
        supplies: The network, and the settings' classifier with its head.
        generator: Who chooses the cells: ``learned``, or chance, from around a ``landmark``, from one side of the face
            (``half_face``), or anywhere (``random``).
        area: Largest part of the cells of an image that is dropped, above 0 and below 1.
        probability: Of an image to lose cells.
        stage: Which feature map, from 0, or from -1 for the last; null for the last of at least 16 cells.
        alternate: Null: network and generator learn in each update, the generator by the reversed gradient. A number
            n from 2: the generator learns in every n-th update, in which the network learns from clean images and the
            segmentation alone; in the others the generator stands still.
        strength: What the reversed gradient is multiplied by, above 0.
        masked: Weight of the classification of the hidden images, from 0.
        consistency: Weight of ``mean(1 - cos)`` between the two embeddings of an image, from 0; the clean one has no
            gradient.
        segmentation: Weight of the cross-entropy of hidden cells, from 0; above 0 it needs a transform such as
            ``occlude``.
        ema: Decay of a moving average of the weights, or None.

    Raises:
        ConfigError: If options, network and transforms do not go together, or a number is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="chen2017masquer",
        title="Adversarial Occlusion-aware Face Detection",
        authors="Chen, Yujia and Song, Lingxiao and He, Ran",
        venue="arXiv preprint",
        year=2017,
        arxiv="1709.05188",
    )
    changes_network: ClassVar[str] = "occlusion drops cells in the middle of it"
    view: View = "clean"

    def __init__(
        self,
        supplies: Supplies,
        generator: Generator = "learned",
        area: float = 1 / 3,
        probability: float = 0.5,
        stage: int | None = None,
        alternate: int | None = None,
        strength: float = 1.0,
        masked: float = 1.0,
        consistency: float = 1.0,
        segmentation: float = 1.0,
        ema: float | None = None,
    ) -> None:
        in_range("occlusion area", area, 0.0, 1.0, low_open=True, high_open=True)
        self.probability = in_range("occlusion probability", probability, 0.0, 1.0)
        self.strength = in_range("occlusion strength", strength, 0.0, math.inf, low_open=True, high_open=True)
        weights = {"masked": masked, "consistency": consistency, "segmentation": segmentation}
        for name, weight in weights.items():
            in_range(f"occlusion {name}", weight, 0.0, math.inf, high_open=True)
        _check(generator, alternate, probability, weights)
        super().__init__(supplies, ema)
        self.masked, self.consistency, self.segmentation = masked, consistency, segmentation
        self.wants_occluded = segmentation > 0
        self.alternate = alternate
        self.updates = 0
        self.require_whole("the mode 'occlusion', which reaches into its feature maps,")
        self.place = FeaturePlace(self.network, stage)
        cells = self.place.cells
        self.dropped = int(area * cells.count)
        if not self.dropped:
            raise ConfigError(
                f"occlusion area is {area:g}, less than one of {cells.rows} x {cells.columns} cells; raise it, or name "
                "an earlier stage."
            )
        device = next(self.network.parameters()).device
        self.generator: Replica[MaskGenerator] | None = None
        self.chance: ChanceScores | None = None
        if generator == "learned":
            self.generator = supplies.replicate(MaskGenerator(cells.channels).to(device))
        else:
            self.chance = ChanceScores(generator, cells, self.network.input_spec)
        self.segment = supplies.replicate(CellNumbers(cells.channels).to(device)) if segmentation else None

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Its losses look at no quality scores; a network that takes them gets them."""
        return False

    def host_work(self) -> str:
        """Whose turn it is."""
        return "occlusion counts there whose turn it is"

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch."""
        clean = batch if batch.reference is None else replace(batch, image=batch.reference)
        with self.place.passing() as seen:
            embedding = self.replica.features(*self.inputs(clean)).embedding
        drop = self._drop(batch, seen[0].detach())
        # Asked apart from the generator, so that what is left of its gradient need not go through the network.
        turn = self._is_generators_turn
        given = drop.detach().requires_grad_() if turn else drop
        with self.place.passing(1.0 - given) as seen, running_statistics_kept(self.network):
            hidden = self.replica.features(*self.inputs(batch)).embedding
        apart = 1.0 - F.cosine_similarity(hidden.float(), embedding.detach().float(), dim=1).mean()
        metrics = {"consistency": apart.detach()}
        if turn:
            loss = self.masked * self.classifier(hidden, batch.label).loss + self.consistency * apart
            (gradient,) = torch.autograd.grad(loss, given)
            output = self.classifier(embedding, batch.label)
            loss = output.loss - self.strength * (gradient * drop).sum()
        else:
            output = self._classified(embedding, hidden, batch.label)
            loss = (2.0 if self.masked else 1.0) * output.loss + self.consistency * apart
        if self.segment is not None:
            told = self._segmentation(self.segment, seen[0], batch)
            loss, metrics["segmentation"] = loss + self.segmentation * told, told.detach()
        return StepOutput(loss, {**output.metrics, **metrics})

    def after_update(self) -> None:
        """Count updates, beside what `Conventional` does."""
        super().after_update()
        self.updates += 1

    def networks(self) -> Mapping[str, nn.Module]:
        """The network, its average, the ``generator`` and the ``segmentation``, as far as there are such."""
        beside = {"generator": self.generator, "segmentation": self.segment}
        return {**super().networks(), **{name: one.network for name, one in beside.items() if one is not None}}

    def replicas(self) -> Iterable[Replica[Any]]:
        """The network, the generator if it learns, and the segmentation."""
        return [*super().replicas(), *(one for one in (self.generator, self.segment) if one is not None)]

    def fresh_modules(self) -> Iterable[nn.Module]:
        """Generator and segmentation."""
        return [one.network for one in (self.generator, self.segment) if one is not None]

    def state(self) -> dict[str, Any]:
        """What resuming needs, the number of updates among it: it says whose turn it is."""
        return {**super().state(), "updates": self.updates}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave; class rows come on their own."""
        super().load_state(state)
        self.updates = int(state["updates"])

    @property
    def _is_generators_turn(self) -> bool:
        return self.alternate is not None and self.updates % self.alternate == self.alternate - 1

    def _drop(self, batch: Batch, feature_map: Tensor) -> Tensor:
        """Which cells of each image are dropped, 1 or 0, (B, 1, H, W); with a gradient if the generator learns."""
        assert batch.draws is not None, "a batch in training comes with what its random numbers follow from"
        draw = Draws(batch.draws, "occlusion")
        if self.generator is None:
            assert self.chance is not None
            scores = on_device(self.chance(draw).astype("float32"), batch.image)
        elif self.alternate is None or self._is_generators_turn:
            scores = self.generator(feature_map)
        else:
            with torch.no_grad():  # not by the replica: processes would wait for its gradients
                scores = self.generator.network(feature_map)
        chosen = on_device(rows_marked(draw.chosen(self.probability), batch.size), batch.image)
        drop = (drop_highest(scores, self.dropped) * chosen).view(-1, 1, *feature_map.shape[2:])
        return reversed_gradient(drop, self.strength) if self.alternate is None else drop

    def _classified(self, embedding: Tensor, hidden: Tensor, label: Tensor) -> ClassifierOutput:
        """Loss of both embeddings of each image, half of their weighted sum, in one pass: owners may sample rows."""
        weight = None
        if self.masked:
            weight = torch.cat([torch.ones_like(label, dtype=torch.float32)] * 2)
            weight[len(label) :] = self.masked
            embedding, label = torch.cat([embedding, hidden]), torch.cat([label, label])
        output: ClassifierOutput = self.classifier(embedding, label, weight)
        return output

    def _segmentation(self, segment: Replica[CellNumbers], feature_map: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the part of each cell that is hidden, ()."""
        assert batch.occluded is not None
        there = batch.occluded[:, :, : self.network.input_spec.height].float()
        part = F.adaptive_avg_pool2d(there, (self.place.cells.rows, self.place.cells.columns))
        return F.binary_cross_entropy_with_logits(segment(feature_map).float(), part)


def _check(generator: Generator, alternate: int | None, probability: float, weights: Mapping[str, float]) -> None:
    """Refuse options that leave nothing to learn, or nobody who does.

    Raises:
        ConfigError: If so; says what would work.
    """
    if not any(weights.values()):
        raise ConfigError(
            "occlusion has no loss beside that of clean images: masked, consistency and segmentation are 0; raise one, "
            "or take mode: conventional."
        )
    if generator != "learned":
        if alternate is not None:
            raise ConfigError(
                f"occlusion alternate is {alternate}, but the generator '{generator}' learns nothing and needs no "
                "turn; leave alternate out, or set generator: learned."
            )
        return
    if alternate is not None:
        in_range("occlusion alternate", alternate, 2, math.inf, high_open=True)
    if not probability or not (weights["masked"] or weights["consistency"]):
        raise ConfigError(
            "occlusion generator: learned raises the losses of images that have lost cells, and there are none: raise "
            "probability, and masked or consistency, or set generator: random."
        )
