"""Quality as a recognition network sees it: the norm of its embedding."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from facelab.citation import Citation
from facelab.errors import ConfigError
from facelab.inputs import InputSpec, normalise
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.quality.card import ScorerCard
from facelab.weights.state_hash import state_hash


@SCORERS.register("FeatureNorm")
class FeatureNorm(PixelScorer):
    """Norm of a frozen network's embedding before it is scaled to 1; higher is better.

    Networks whose loss ties the norm to quality (MagFace, AdaFace) give faces that are hard to see a short embedding.
    Others need not: where a normalisation follows the last layer, the norm says nothing. See docs/quality.md.

    Args:
        network: The network, in evaluation mode, with an ``input_spec``; the program supplies it.

    Raises:
        ConfigError: If the network is in training mode, says nothing of its input, or needs a quality score itself.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="meng2021magface",
        title="MagFace: A Universal Representation for Face Recognition and Quality Assessment",
        authors="Meng, Qiang and Zhao, Shichao and Huang, Zhida and Zhou, Feng",
        venue="CVPR",
        year=2021,
        arxiv="2103.06627",
    )

    def __init__(self, network: nn.Module) -> None:
        spec = getattr(network, "input_spec", None)
        name = type(network).__name__
        if not isinstance(spec, InputSpec):
            raise ConfigError(f"FeatureNorm: {name} has no input_spec, so what input it takes is unknown.")
        if network.training:
            raise ConfigError(f"FeatureNorm: {name} is in training mode, its norms would change; call eval() first.")
        if getattr(network, "needs_quality", False):
            raise ConfigError(f"FeatureNorm: {name} takes a quality score itself; give the network without adapters.")
        self._network, self._spec = network, spec
        self.sequential = bool(getattr(network, "sequential_forward", False))
        version = f"{name} {state_hash(network.state_dict(), spec.describe())[:16]}"
        self.card = ScorerCard(name="FeatureNorm", version=version, low=0.0, higher_is_better=True)

    def measure(self, pixels: Tensor) -> Tensor:
        """The norms, (B,)."""
        embedding: Tensor = self._network(normalise(pixels, self._spec))
        norm: Tensor = torch.linalg.vector_norm(embedding.float(), dim=1)
        return norm
