"""The contract of every adapter, and the backbone with adapters in it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facelab.adapter.gate import Gate
from facelab.adapter.gate_slot import gate_of_forward, without_updates
from facelab.adapter.low_rank import Experts, LowRankLayer
from facelab.adapter.structure import Structure
from facelab.adapter.targets import replace
from facelab.adapter.two_spaces import add_spaces, join_spaces
from facelab.backbone.base import Backbone, Features, PatchGrid
from facelab.citation import Citation
from facelab.errors import CheckpointError, ConfigError
from facelab.quality.card import ScorerCard
from facelab.registry import Registry
from facelab.weights.state_fit import named
from facelab.weights.state_hash import state_hash


class Adapter(ABC):
    """A change to a built backbone after which few of its parameters, or chosen ones, are trained.

    The constructor's signature is the YAML schema.

    Attributes:
        needs_gate: Whether its layers weigh experts by the quality of each image.
        moving_statistics: Whether the BatchNorm layers of the base keep following the training images. They move the
            embeddings of all images, also of those that the base was good at, so by default they stay.
        crossing: Probability that an image is embedded by the low-quality expert during training, whatever its quality.
        joined: Share of the high-quality space in the joined embedding of a perfect image, which is given in evaluation
            mode (`facelab.adapter.two_spaces.join_spaces`); at 0 each image is embedded once, by its own gate.
        added: Whether the spaces are added instead (`facelab.adapter.two_spaces.add_spaces`).
    """

    citation: ClassVar[Citation | None] = None
    needs_gate: bool = False
    moving_statistics: bool = False
    crossing: float = 0.0
    joined: float = 0.0
    added: bool = False

    @abstractmethod
    def inject(self, network: Backbone) -> None:
        """Change ``network`` in place. All its parameters come frozen; set free those that are to be trained.

        Raises:
            ConfigError: If the adapter does not fit the network.
        """


ADAPTERS: Registry[Adapter] = Registry("adapter", "facelab.adapter")


@dataclass(frozen=True)
class ParameterCount:
    """How much of an adapted backbone is trained.

    Attributes:
        base: Parameters of the backbone as it was.
        added: Parameters of its adapters.
        trainable: Parameters that are trained, the gate's included.
        kinds: Layers and parameters of each kind of update: ``single``, ``dual`` or ``low``.
    """

    base: int
    added: int
    trainable: int
    kinds: Mapping[Experts, tuple[int, int]]

    def describe(self) -> str:
        """Trained parameters, their share of the base, and those of each kind of update; one line."""
        share = 100 * self.trainable / self.base
        parts = [f"{kind} updates of {layers} layers {count:,}" for kind, (layers, count) in self.kinds.items()]
        rest = self.trainable - self.added
        parts += [f"{'all of the base' if rest == self.base else 'of the base or gate'} {rest:,}"] if rest else []
        return (
            f"{self.trainable:,} parameters are trained, {share:.2f} % of the base's {self.base:,}: {', '.join(parts)}"
        )


class AdaptedBackbone(Backbone):
    """A backbone with adapters. The base is changed in place: there is no second copy of it.

    Args:
        network: The backbone; it belongs to the adapted one from now on.
        adapter: What to change.
        gate: Maps quality scores to gate values; needed by adapters that weigh experts, refused by others.

    Attributes:
        network: The backbone with adapters in its layers. Frozen parameters keep their names.
        gate: The gate, or None.
        base_hash: Hash of the backbone's state before the change; a file of adapters names it.

    Raises:
        ConfigError: If adapter and network, or adapter and gate, do not go together.
    """

    def __init__(self, network: Backbone, adapter: Adapter, gate: Gate | None = None) -> None:
        super().__init__(network.input_spec, network.feat_dim, unit_norm=network.unit_norm)
        if adapter.needs_gate != (gate is not None):
            needs = "needs a gate from quality scores" if adapter.needs_gate else "has no use for a gate"
            raise ConfigError(f"the adapter {type(adapter).__name__} {needs}.")
        self.base_hash = state_hash(network.state_dict())
        # Before everything is frozen: what is not trained now, the network itself keeps fixed.
        self._base = Structure.of(network)
        network.requires_grad_(False)
        adapter.inject(network)
        self._fix(network)
        self.network = network
        self.gate = gate
        self.needs_quality = gate is not None
        self.moving_statistics = adapter.moving_statistics
        self.crossing, self.joined, self.added = adapter.crossing, adapter.joined, adapter.added
        self.train(network.training)

    def _fix(self, network: Backbone) -> None:
        """Freeze again what the network itself fixes, such as tables of positions, whatever the adapter set free."""
        for name, parameter in network.named_parameters():
            if name in self._base.fixed:
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ConfigError(
                "the adapter leaves nothing to train: the network itself fixes every parameter that it sets free "
                f"({named('fixed', set(self._base.fixed))})."
            )

    @property
    def quality_scorer(self) -> ScorerCard | None:
        """Who made the scores that the gate was calibrated on."""
        return None if self.gate is None else self.gate.scorer

    @property
    def gated_patches(self) -> PatchGrid | None:
        """Those of the base."""
        return self.network.gated_patches

    @property
    def fsdp_units(self) -> tuple[nn.Module, ...]:
        """Those of the base, adapters included."""
        return self.network.fsdp_units

    def features(self, image: Tensor, quality: Tensor | None = None) -> Features:
        """Embedding and inner features of normalised images (B, 3, H, W) with quality scores (B,)."""
        with gate_of_forward(self.gate_of(quality)):
            return self.network.features(image)

    def forward(self, image: Tensor, quality: Tensor | None = None) -> Tensor:
        """Embeddings (B, D); (B, 2D) in evaluation mode if the adapter joins both spaces and does not add them.

        Args:
            image: Normalised images, (B, 3, H, W).
            quality: Score of each image as its scorer gives it, (B,), where the adapter has a gate.

        Raises:
            ConfigError: If the scores are missing.
        """
        gate = self.gate_of(quality)
        # Not in training: class rows have D numbers.
        if gate is None or self.training or not self.joined:
            return self.with_gate(image, gate)
        low, high = (self.with_gate(image, torch.full_like(gate, expert)) for expert in (0.0, 1.0))
        return (add_spaces if self.added else join_spaces)(low, high, gate, self.joined)

    @property
    def embedding_dim(self) -> int:
        """Numbers in an embedding in evaluation mode: D, or 2D if the spaces are joined and not added."""
        return self.feat_dim * (2 if self.joined and not self.added else 1)

    def with_gate(self, image: Tensor, gate: Tensor | None) -> Tensor:
        """Embeddings (B, D) for given gate values (B,) instead of quality scores."""
        with gate_of_forward(gate):
            embedding: Tensor = self.network(image)
        return embedding

    @torch.no_grad()
    def base_embedding(self, image: Tensor) -> Tensor:
        """Embeddings (B, D) of the frozen base, in evaluation mode and without gradients.

        Raises:
            ConfigError: If the adapter trains the base's own parameters, so that the base is no more.
        """
        if not self.low_rank_layers():
            raise ConfigError("the adapter trains the base itself, so there is no frozen base to ask.")
        training = self.training
        self.eval()
        with without_updates():
            embedding: Tensor = self.network(image)
        self.train(training)
        return embedding

    def gate_of(self, quality: Tensor | None) -> Tensor | None:
        """Gate values (B,) of quality scores (B,).

        Raises:
            ConfigError: If there is a gate, and no scores.
        """
        if self.gate is None:
            return None
        if quality is None:
            raise ConfigError(
                "the adapted backbone weighs its experts by quality, but there are no quality scores; make them with "
                "`facelab iqa score DATA`."
            )
        values: Tensor = self.gate(quality)
        if self.training and self.crossing:
            # Good images too must be known in the space of the low-quality expert: low probes look for them there.
            values = values.masked_fill(torch.rand_like(values) < self.crossing, 0.0)
        return values

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for the statistics of the base's BatchNorm layers, unless they are to move."""
        super().train(mode)
        if mode and not self.moving_statistics:
            for layer in self.network.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def low_rank_layers(self) -> dict[str, LowRankLayer]:
        """The layers with low-rank updates, by their names in the network."""
        return {name: layer for name, layer in self.network.named_modules() if isinstance(layer, LowRankLayer)}

    def count(self) -> ParameterCount:
        """Parameters of the base, of the adapters, and those that are trained."""
        kinds: dict[Experts, tuple[int, int]] = {}
        for layer in self.low_rank_layers().values():
            layers, count = kinds.get(layer.experts, (0, 0))
            kinds[layer.experts] = (layers + 1, count + layer.low_rank_down.numel() + layer.low_rank_up.numel())
        parameters = dict(self.network.named_parameters())
        added = sum(one.numel() for name, one in parameters.items() if name not in self._base.shapes)
        trainable = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return ParameterCount(self._base.parameters, added, trainable, kinds)

    def own_state(self) -> dict[str, Tensor]:
        """The tensors that the base has not: those that adapter and gate brought, and trained ones of the base."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        of_base = {f"network.{name}" for name in self._base.shapes}
        return {name: tensor for name, tensor in self.state_dict().items() if name in trained or name not in of_base}

    def require_unmoved_base(self) -> None:
        """Refuse where base and `own_state` together would not bring the network back.

        Raises:
            CheckpointError: If the adapter lets BatchNorm statistics move, or tensors of the base changed that it does
                not train.
        """
        if self.moving_statistics or self._base_changed():
            raise CheckpointError(
                "BatchNorm statistics or other tensors of the base moved during training, so a file of adapters alone "
                "would not bring the network back; store the whole model."
            )

    def _base_changed(self) -> bool:
        """Whether the base is another one by its hash, which only tells where nothing of it is trained or renamed."""
        state, names = self.network.state_dict(), self._base.shapes
        trained = any(one.requires_grad and name in names for name, one in self.network.named_parameters())
        known = not trained and names.keys() <= state.keys()
        return known and state_hash({name: state[name] for name in names}) != self.base_hash

    def merged(self, gate: float = 0.5) -> Backbone:
        """The backbone as an ordinary one, with dense weights that act as the adapters do at one gate value.

        Adapters are taken out of this object: it must not be used afterwards.

        Args:
            gate: The value that all images get from now on; of no effect without a gate.

        Raises:
            ConfigError: If a layer cannot be merged, or the adapter changed the network in another way than by low-rank
                updates and trained parameters; nothing is changed then.
        """
        layers = self.low_rank_layers()
        plain = {name: layer.plain(layer.merged_weight(gate).detach()) for name, layer in layers.items()}
        # Before the first layer is replaced, so that a refusal leaves the network as it is.
        if foreign := self._base.differences(self.network, plain):
            raise ConfigError(
                "the adapter cannot be merged: beside low-rank updates it changed the network, "
                f"{named('different', foreign)}. Use the adapted model as it is."
            )
        for name, layer in plain.items():
            replace(self.network, name, layer)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in self._base.fixed)
        return self.network
