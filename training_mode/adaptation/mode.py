"""Adaptation: a trained network learns new images by adapters, and is kept from forgetting what it knew."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.adapter.base import AdaptedBackbone
from facelab.adapter.dual_lora import DualLoRA
from facelab.adapter.gate import Gate
from facelab.data.base import Batch, Labels
from facelab.engine.loop import StepOutput
from facelab.errors import ConfigError, in_range
from facelab.inputs import normalise
from facelab.training_mode.adaptation.alignment import alignment_loss, pairs_across
from facelab.training_mode.base import MODES, Supplies
from facelab.training_mode.conventional.mode import Conventional

LOW = 0.5  # images with a lesser gate are low ones


@MODES.register("adaptation")
class Adaptation(Conventional):
    """Trains adapters and class rows; everything else of the base stays as it is.

    With ``distillation`` the embeddings of good images are held near those of the frozen base: the loss gains
    ``distillation * mean(a (1 - cos(z, z_base)))``, where a is the gate of each image, 1 for all without a gate. The
    base's embeddings come from the same network with its updates left out; only full fine-tuning, which changes the
    base, keeps a frozen copy. (Learning without forgetting, Li and Hoiem, ECCV 2016, on embeddings instead of logits.)

    With ``alignment`` the loss gains that weight times `alignment_loss`: a low image (gate below 0.5) lies near high
    images of its person. It needs batches with both: a sampler that draws several images of each person.

    Replay needs no option: join high-quality images as classes of their own by the source ``Concat``.

    Args:
        supplies: The adapted network, and the settings' classifier with its head.
        gate: The calibrated gate, or None; it weighs the distillation.
        distillation: Weight of the loss that holds good images, from 0 (off).
        alignment: Weight of the loss across qualities, from 0 (off).
        ema: Decay of a moving average of the weights, or None.

    Raises:
        ConfigError: If the network has no adapter, a weight is negative, or there is alignment and no gate.
    """

    citation = DualLoRA.citation

    def __init__(
        self,
        supplies: Supplies,
        gate: Gate | None = None,
        distillation: float = 0.0,
        alignment: float = 0.0,
        ema: float | None = None,
    ) -> None:
        if not isinstance(supplies.backbone, AdaptedBackbone):
            raise ConfigError("the mode 'adaptation' trains adapters; name one, for example adapter: DualLoRA.")
        self.distillation = in_range("adaptation distillation", distillation, 0.0, float("inf"), high_open=True)
        self.alignment = in_range("adaptation alignment", alignment, 0.0, float("inf"), high_open=True)
        if alignment and gate is None:
            raise ConfigError("adaptation alignment tells low from high images by a gate, and there is none; name one.")
        self.adapted = supplies.backbone
        self.gate = gate
        changes = not self.adapted.low_rank_layers()
        # Before the network is replicated: each process may have only a part of it then.
        self.teacher = deepcopy(self.adapted).eval().requires_grad_(False) if distillation and changes else None
        super().__init__(supplies, ema)

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """The losses of `distillation` and `alignment` do."""
        return bool(options.get("distillation") or options.get("alignment"))

    def host_work(self) -> str:
        """The choice of pairs, where there is alignment."""
        return "the pairs of adaptation alignment are counted there" if self.alignment else ""

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch."""
        embedding = self.embed(batch)
        output = self.classifier(embedding, batch.label)
        loss, metrics = output.loss, dict(output.metrics)
        if self.distillation:
            forgotten = self._forgotten(embedding, batch)
            loss, metrics["forgotten"] = loss + self.distillation * forgotten, forgotten.detach()
        if self.alignment:
            apart = alignment_loss(embedding, batch.label, self._gates(batch) < LOW)
            loss, metrics["apart"] = loss + self.alignment * apart, apart.detach()
        return StepOutput(loss, metrics)

    @torch.no_grad()
    def check_batches(
        self, parts: Iterable[NDArray[np.int64]], labels: Labels, quality: NDArray[np.float32] | None
    ) -> None:
        """Refuse `alignment` where batches hold fewer than one pair of a low and a high image on average."""
        if not self.alignment or self.gate is None or quality is None:
            return
        score = torch.from_numpy(quality).to(self.gate.tau.device)
        low = (self.gate(score) < LOW).cpu().numpy()
        pairs = [pairs_across(labels[rows], low[rows]) for rows in parts]
        if sum(pairs) < len(pairs):
            raise ConfigError(
                f"adaptation alignment draws low images (gate below {LOW}) to high ones of the same person, but the "
                f"first {len(pairs)} batches hold only {sum(pairs)} such pairs; draw several images of each person, "
                "data.sampler: {ClassBalanced: {images_per_class: 4}}, from a source that has people in both "
                "qualities, or leave alignment out."
            )

    @torch.no_grad()
    def _gates(self, batch: Batch) -> Tensor:
        """Gate of each image in 0..1, (B,); 1 where there is none."""
        if self.gate is None or batch.quality is None:
            return batch.image.new_ones(len(batch.image), dtype=torch.float32)
        values: Tensor = self.gate(batch.quality).clamp(0.0, 1.0)
        return values

    def _forgotten(self, embedding: Tensor, batch: Batch) -> Tensor:
        """How far good images moved from the base: mean of a (1 - cos), ()."""
        image = normalise(batch.image, self.network.input_spec)
        if self.teacher is None:
            with torch.no_grad():
                target = self.replica.call("base_embedding", image)
        else:
            with torch.no_grad():
                target = self.teacher(image)
        # In fp32: near 1, bf16 has cosines in steps of 0.004 only.
        apart = 1.0 - F.cosine_similarity(embedding.float(), target.float())
        return torch.mean(self._gates(batch) * apart)

    def networks(self) -> Mapping[str, nn.Module]:
        """The network, its average, and the frozen base as ``teacher`` where adapters change the base itself."""
        return {**super().networks(), **({} if self.teacher is None else {"teacher": self.teacher})}

    def stored(self, name: str) -> Mapping[str, Tensor]:
        """Of the network what its base does not bring, and nothing of the teacher, which is that base."""
        return {} if name == "teacher" else self._learned() if name == "network" else super().stored(name)

    def _learned(self) -> dict[str, Tensor]:
        """What the base does not bring: adapters, gate, and statistics that move."""
        kept = self.network.state_dict()  # tables that are computed anew are buffers too, and not kept
        buffers = (name for name, _ in self.network.named_buffers() if self.adapted.moving_statistics and name in kept)
        return self.adapted.own_state() | {name: kept[name] for name in buffers}
