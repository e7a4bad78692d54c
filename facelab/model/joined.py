"""Several models as one: their embeddings side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.base import Backbone, Features, takes_quality
from facelab.errors import ConfigError
from facelab.inputs import InputSpec, normalise
from facelab.model.face_model import FaceModel


class JoinedNetworks(Backbone):
    """Unit embeddings of several networks side by side, so that the cosine of two images is the mean of the networks'.

    Each network sees the images as it wants them: its colours, its range, its part of the face.

    Args:
        networks: Of which aligned faces have one size, and none takes quality scores.
    """

    def __init__(self, networks: Sequence[Backbone]) -> None:
        height, width = networks[0].input_spec.aligned
        # Pixels arrive as they are stored; what is done to them is each network's own.
        super().__init__(InputSpec(height, width, mean=0.0, std=1.0), sum(one.embedding_dim for one in networks))
        self.networks = nn.ModuleList(networks)
        self.specs = [one.input_spec for one in networks]
        self.sequential_forward = any(getattr(one, "sequential_forward", False) for one in networks)

    def features(self, image: Tensor) -> Features:
        """Embeddings of images in RGB, 0..255, (B, 3, H, W)."""
        pixels = image.to(torch.uint8)
        pairs = zip(self.networks, self.specs, strict=True)
        parts = [F.normalize(network(normalise(pixels, spec)).float(), dim=1) for network, spec in pairs]
        return Features(torch.cat(parts, dim=1))


def joined_model(models: Sequence[FaceModel]) -> FaceModel:
    """Several models as one that is called ``A + B``.

    Raises:
        ConfigError: If there are fewer than two, faces of several sizes are wanted, or a network takes quality scores.
    """
    if len(models) < 2:
        raise ConfigError(f"--concat joins several models, but there is {len(models)}; name two runs or more.")
    if gated := [model.name for model in models if takes_quality(model.network)]:
        raise ConfigError(f"'{gated[0]}' takes quality scores, and --concat joins networks that see images alone.")
    sizes = {model.name: "x".join(map(str, model.input_spec.aligned)) for model in models}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise ConfigError(f"--concat joins models of one size of aligned faces, but these take {said}.")
    network = JoinedNetworks([model.network for model in models])
    return FaceModel(network, " + ".join(model.name for model in models), {}, models[0].device)
