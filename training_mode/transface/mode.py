"""TransFace: a vision transformer with a gate for its patches, trained on perturbed patches and by entropy."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.backbone.base import Features, PatchGrid
from facelab.citation import Citation
from facelab.data.base import Batch
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.rows import on_device, take_rows
from facelab.engine.loop import StepOutput
from facelab.errors import ConfigError, in_range
from facelab.training_mode.base import MODES, Supplies
from facelab.training_mode.conventional.mode import Conventional
from facelab.training_mode.transface.dpap import Donors, perturb
from facelab.training_mode.transface.ehsm import Entropy, entropy_weight, token_entropy
from facelab.training_mode.transface.ranking import MeanGate, Ranking
from facelab.undisturbed import undisturbed


@MODES.register("transface")
class TransFace(Conventional):
    """TransFace (Dan et al., ICCV 2023, arXiv:2308.10133): two additions to a margin head on a ViT with a patch gate.

    DPAP: of some images, the patches with the largest gates get mixed amplitude spectra, the share of the
    other patch drawn anew for each, so that the network does not rely on a few patches. EHSM: the loss of
    each sample is multiplied by ``1 + exp(-gamma H)``, H the mean entropy of its tokens as they enter the output.

    Departures from the published program: it ranks by a second forward pass of the whole batch in training mode, which
    moves BatchNorm's statistics twice a step; here no pass or one without traces ranks. Donors are images of this
    process's part of the batch, as there, but never patches that have been changed already. Its weights have no
    gradient, although the paper wants it: `entropy_gradient`.

    Args:
        supplies: A network with a gate for its patches, and the settings' classifier with its head.
        patches: K, how many patches of an image are changed; 7 in the program, 15 in figures.
        probability: Of an image to be changed; 0 leaves DPAP out.
        strength: alpha, the largest share of the other amplitude, above 0 to 1.
        ranking: ``stale`` takes the positions whose gates were largest in recent steps, ``fresh`` those of each image
            by a forward pass of the images that are changed, in evaluation mode and without traces.
        entropy: ``deviation`` of a token's channels (the program), the entropy of a ``gaussian`` with that deviation
            (the paper), or null for no weights.
        gamma: Steepness of the weight, above 0.
        entropy_gradient: Whether the loss also drives the weights down, and so the entropy up.
        ema: Decay of a moving average of the weights, or None.

    Raises:
        ConfigError: If an argument is out of range, or the network has no gate or fewer patches.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="dan2023transface",
        title="TransFace: Calibrating Transformer Training for Face Recognition from a Data-Centric Perspective",
        authors="Dan, Jun and Liu, Yang and Xie, Haoyu and Deng, Jiankang and Xie, Haoran and Xie, Xuansong and "
        "Sun, Baigui",
        venue="ICCV",
        year=2023,
        arxiv="2308.10133",
    )

    def __init__(
        self,
        supplies: Supplies,
        patches: int = 7,
        probability: float = 0.2,
        strength: float = 1.0,
        ranking: Ranking = "stale",
        entropy: Entropy | None = "deviation",
        gamma: float = 1.0,
        entropy_gradient: bool = False,
        ema: float | None = None,
    ) -> None:
        self.grid = _gated_grid(supplies)
        in_range(f"transface patches, of {self.grid.count},", patches, 1, self.grid.count)
        self.patches = patches
        self.probability = in_range("transface probability", probability, 0.0, 1.0)
        self.strength = in_range("transface strength", strength, 0.0, 1.0, low_open=True)
        self.gamma = in_range("transface gamma", gamma, 0.0, math.inf, low_open=True, high_open=True)
        if entropy_gradient and entropy is None:
            raise ConfigError("transface entropy_gradient is true, but there are no weights: name an entropy.")
        super().__init__(supplies, ema)
        self.entropy, self.entropy_gradient = entropy, entropy_gradient
        device = next(self.network.parameters()).device
        stale = ranking == "stale" and probability > 0
        if ranking == "fresh" and probability > 0:  # processes would pass images through it in different numbers
            self.require_whole("transface ranking: fresh")
        self.mean_gate = MeanGate(self.grid.count).to(device) if stale else None

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Its losses look at no quality scores; a network that takes them gets them."""
        return False

    def host_work(self) -> str:
        """The draw of images and patches."""
        return "transface draws there which images it changes" if self.probability else ""

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch."""
        features = self.replica.features(*self.inputs(self._perturbed(batch)))
        if self.mean_gate is not None and features.patch_gate is not None:
            self.mean_gate.update(features.patch_gate)
        weight, metrics = self._weight(features)
        output = self.classifier(features.embedding, batch.label, weight)
        return StepOutput(output.loss, {**output.metrics, **metrics})

    def networks(self) -> Mapping[str, nn.Module]:
        """The network, its average, and the running mean of its gate."""
        return {**super().networks(), **({} if self.mean_gate is None else {"mean_gate": self.mean_gate})}

    @torch.no_grad()
    def _perturbed(self, batch: Batch) -> Batch:
        """The batch with the dominant patches of some images changed."""
        if not self.probability:
            return batch
        if batch.draws is None:
            raise AssertionError("a batch in training comes with what its random numbers follow from")
        draw = Draws(batch.draws, "dpap")
        donors = Donors.drawn(draw, batch.size, self.grid, self.patches, self.probability, self.strength)
        if not len(donors.rows):
            return batch
        place = self._ranks(batch, draw, donors).topk(self.patches, dim=1).indices
        return replace(batch, image=perturb(batch.image, self.grid, place, donors))

    def _ranks(self, batch: Batch, draw: Draws, donors: Donors) -> Tensor:
        """What the patches of the changed images are ranked by, (M, N)."""
        if self.mean_gate is not None:
            noise = draw("tie", self.grid.count)[donors.rows]
            ranks: Tensor = self.mean_gate(on_device(noise, batch.image))
            return ranks
        part = replace(batch, image=take_rows(batch.image, donors.rows))
        if batch.quality is not None:
            part = replace(part, quality=batch.quality[on_device(donors.rows, batch.image)])
        with undisturbed(self.network, batch.image.device):
            gate = self.network.features(*self.inputs(part)).patch_gate
        return _given(gate)

    def _weight(self, features: Features) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Weight of each sample, (B,), and metrics; over all processes, as those of the classifier are."""
        deviation = _given(features.patch_deviation).float()
        if not self.entropy_gradient:
            deviation = deviation.detach()
        weight = None if self.entropy is None else entropy_weight(token_entropy(deviation, self.entropy), self.gamma)
        # The same entropy whatever weighs, so that runs can be compared.
        logged = {"token_entropy": token_entropy(deviation.detach(), "gaussian").mean()}
        if weight is not None:
            logged["sample_weight"] = weight.detach().mean()
        means = distributed.all_reduce_sum(torch.stack(list(logged.values()))) / distributed.world_size()
        return weight, dict(zip(logged, means, strict=True))


def _gated_grid(supplies: Supplies) -> PatchGrid:
    """Where the patches lie that the network weighs.

    Raises:
        ConfigError: If it weighs none.
    """
    grid = supplies.backbone.gated_patches
    if grid is None:
        raise ConfigError(
            "the mode 'transface' needs a network with a gate for its patches, and "
            f"{type(supplies.backbone).__name__} as it is set has none; choose backbone: TransFace-S, or "
            "{ViT: {patch_gate: true}}."
        )
    return grid


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise AssertionError("a network with gated patches gives gates and tokens")
    return tensor
