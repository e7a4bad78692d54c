"""The contract of every backbone and their registry."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.inputs import InputSpec
from facelab.quality.card import ScorerCard, require_scorer
from facelab.registry import Registry

FACEXZOO_INPUT = InputSpec(colour="BGR", std=128.0)
"""What FaceX-Zoo trains its networks with: 112x112 BGR, (x - 127.5) / 128."""


@dataclass(frozen=True)
class PatchGrid:
    """Square patches of an image, row by row from its upper left corner; what is left at the other borders is in none.

    Attributes:
        rows: Of patches.
        columns: Of patches.
        side: Of a patch, in pixels.
    """

    rows: int
    columns: int
    side: int

    @property
    def count(self) -> int:
        """N, the number of patches."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Features:
    """What a backbone can give besides its embedding, for distillation, occlusion and patch methods.

    Attributes:
        embedding: (B, D).
        maps: Feature maps (B, C, H, W) after each stage, coarser and coarser; empty if the network has none.
        tokens: (B, N, C) tokens before pooling, if the network works on tokens.
        patch_gate: (B, N) weight of each token, if the network computes one.
    """

    embedding: Tensor
    maps: tuple[Tensor, ...] = ()
    tokens: Tensor | None = None
    patch_gate: Tensor | None = None

    @property
    def patch_deviation(self) -> Tensor | None:
        """(B, N) standard deviation of each token over its channels, if there are tokens (TransFace's third output)."""
        return None if self.tokens is None else self.tokens.std(dim=2)


class Backbone(nn.Module, ABC):
    """A network that turns images into embeddings. It knows nothing of labels or losses.

    Subclasses implement `features`; `forward` returns its embedding.

    Attributes:
        input_spec: Size, colour order and value range that the network was (or will be) trained with.
        feat_dim: D, the length of an embedding.
        unit_norm: Whether embeddings come out with norm 1 (then the norm carries no quality).
        needs_quality: Whether the network takes a quality score of each image: ``forward(image, quality)`` with
            ``quality`` float32, (B,), as its scorer gives it. Training and extraction then refuse to start without one.
    """

    citation: ClassVar[Citation | None] = None
    needs_quality: bool = False

    def __init__(self, input_spec: InputSpec, feat_dim: int, *, unit_norm: bool = False) -> None:
        super().__init__()
        in_range("backbone feat_dim", feat_dim, 1, math.inf)
        self.input_spec = input_spec
        self.feat_dim = feat_dim
        self.unit_norm = unit_norm

    @property
    def quality_scorer(self) -> ScorerCard | None:
        """Who must give the scores that the network takes; None if that is unknown, or if it takes none."""
        return None

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of the published network's state dict; None for one that ours has no use for.

        Raises:
            KeyError: If the name is of no published form; names the part that is unknown.
        """
        raise KeyError(name)

    def inference_form(self) -> "Backbone":
        """A network of equal embeddings in evaluation mode that costs less; itself unless its family knows one."""
        return self

    @property
    def gated_patches(self) -> PatchGrid | None:
        """The patches that the network weighs by a gate, ``features(image).patch_gate``; None if it weighs none."""
        return None

    @property
    def fsdp_units(self) -> tuple[nn.Module, ...]:
        """Modules that hold most of the parameters and run one after the other; none if the family names none.

        With ``training.parallel: fsdp`` each is whole on a process only while it runs. They take and give tensors, are
        called as modules, and share no parameter.
        """
        return ()

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding in evaluation mode; an adapted network may join two."""
        return self.feat_dim

    @abstractmethod
    def features(self, image: Tensor) -> Features:
        """Embedding and inner features of normalised images (B, 3, H, W)."""

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (B, D) of normalised images (B, 3, H, W)."""
        return self.features(image).embedding


def takes_quality(network: nn.Module) -> bool:
    """Whether a network's forward pass takes a quality score of each image beside the images."""
    return bool(getattr(network, "needs_quality", False))


def check_quality(network: nn.Module, *, given: bool) -> None:
    """Refuse a network that takes quality scores where there are none.

    Raises:
        ConfigError: If so; the message says how to get them.
    """
    if takes_quality(network) and not given:
        raise ConfigError(
            f"{type(network).__name__} takes a quality score of each image, and there are none: make a table with "
            "`facelab iqa score DATA`, and name it by --quality TABLE (facelab test, embed, verify), by data.quality "
            "and evaluation.quality (facelab train), or by quality=TABLE (Python); a scorer such as {Sharpness: {}} "
            "may stand in their place."
        )


def check_scorer(network: nn.Module, given: ScorerCard, where: str) -> None:
    """Refuse scores of another scorer than that of a network's gate.

    Args:
        network: The network.
        given: Who made the scores.
        where: Names the scores in the message.

    Raises:
        ConfigError: If so; the message says what would work.
    """
    require_scorer(getattr(network, "quality_scorer", None), given, where)


BACKBONES: Registry[Backbone] = Registry("backbone", "facelab.backbone")
