"""What is exported: the network with the norm of its embeddings, and the preprocessing in front of it."""

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn

from facelab.adapter.base import AdaptedBackbone
from facelab.backbone.base import Backbone
from facelab.errors import ConfigError
from facelab.inputs import InputSpec
from facelab.iqa.base import PixelScorer

LEAST_NORM = 1e-12


class EmbeddingGraph(nn.Module):
    """Unit embeddings of what a network takes, and the norms that they had.

    Args:
        network: In evaluation mode; it belongs to the graph from now on.
        flip: Whether the embedding of the mirrored face is added before the norm is taken.
        half: Whether weights and products are fp16; inputs and outputs stay float32.
    """

    def __init__(self, network: Backbone, *, flip: bool = False, half: bool = False) -> None:
        super().__init__()
        self.network = network.half() if half else network
        if isinstance(network, AdaptedBackbone) and network.gate is not None:
            network.gate.float()  # scores keep their digits; what the gate gives is rounded
        self.flip = flip
        self.half_precision = half

    def forward(self, image: Tensor, quality: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) of norm 1 and their norms (B,), from images (B, 3, H, W) and quality scores (B,)."""
        embedding = self._embedding(image, quality)
        if self.flip:
            embedding = embedding + self._embedding(image.flip(3), quality)
        norm = torch.linalg.vector_norm(embedding, dim=1)
        return embedding / norm.clamp_min(LEAST_NORM).unsqueeze(1), norm

    def _embedding(self, image: Tensor, quality: Tensor | None) -> Tensor:
        given = image.half() if self.half_precision else image
        embedding: Tensor = self.network(given) if quality is None else self.network(given, quality)
        return embedding.float()


class PreprocessingGraph(nn.Module):
    """Stored pixels to what a network takes, and to their quality scores if the network wants any.

    Args:
        spec: What the network takes.
        scorer: Who scores the faces, or None.
    """

    def __init__(self, spec: InputSpec, scorer: PixelScorer | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.scorer = scorer

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (B, 3, height, width), and scores (B,), from RGB uint8, (B, H, W, 3)."""
        pixels = image.permute(0, 3, 1, 2)
        seen = pixels[:, :, : self.spec.height].float()
        if self.spec.colour == "BGR":
            seen = seen.flip(1)
        normalised = (seen - self.spec.mean) / self.spec.std
        if self.scorer is None:
            return (normalised,)
        return normalised, self.scorer.measure(pixels).float()


class WholeGraph(nn.Module):
    """Preprocessing and embedding in one.

    Args:
        before: The preprocessing.
        after: The rest.
    """

    def __init__(self, before: PreprocessingGraph, after: EmbeddingGraph) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, image: Tensor, quality: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `EmbeddingGraph`, from RGB uint8, (B, H, W, 3)."""
        normalised, *scores = self.before(image)
        if scores:
            (quality,) = scores
        embedding: tuple[Tensor, Tensor] = self.after(normalised, quality)
        return embedding


def prepared_network(network: Backbone) -> Backbone:
    """A copy of a network for export: adapters that treat all images alike are merged, branches are joined."""
    own = copy.deepcopy(network).cpu().eval()
    if isinstance(own, AdaptedBackbone) and own.gate is None:
        # What cannot be merged stays beside the layers, which is as exact and a little slower.
        with suppress(ConfigError):
            own = own.merged()
    return own.inference_form().eval().requires_grad_(False)
