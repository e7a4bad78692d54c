"""A frozen network that is asked and never trained."""

import math

import torch
from torch import Tensor

from facelab.backbone.base import Backbone, Features, takes_quality
from facelab.data.transforms.resize import resize
from facelab.errors import ConfigError
from facelab.inputs import normalise
from facelab.training_mode.distillation.loss import Outputs, Shapes


class Teacher:
    """A network in evaluation mode, without gradients, that is shown pixels as its own input wants them.

    Size, colour order and value range of the images belong to the network: a teacher may take other images than its
    student.

    Args:
        network: The trained network, on its device.
        where: Names it in messages.

    Attributes:
        network: The same, frozen.

    Raises:
        ConfigError: If it takes quality scores.
    """

    def __init__(self, network: Backbone, where: str) -> None:
        if takes_quality(network):
            raise ConfigError(
                f"the teacher '{where}' weighs its experts by quality scores, and distillation gives it none; take its "
                "base, or a network with adapters that need no gate."
            )
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, *, maps: bool) -> Outputs:
        """What it makes of stored pixels, uint8, (B, 3, H, W), of any size."""
        spec = self.network.input_spec
        image = normalise(resize(pixels, *spec.aligned), spec)
        if not maps:
            return Outputs(self.network(image).float())
        return outputs_of(self.network.features(image))


def outputs_of(features: Features) -> Outputs:
    """Embedding and maps in fp32; tokens on a square grid are a last map, where the network has no maps."""
    maps = features.maps
    if not maps and features.tokens is not None:
        batch, count, channels = features.tokens.shape
        side = math.isqrt(count)
        if side**2 == count:
            maps = (features.tokens.mT.reshape(batch, channels, side, side),)
    return Outputs(features.embedding.float(), tuple(one.float() for one in maps))


@torch.no_grad()
def shapes_of(network: Backbone, *, maps: bool) -> Shapes:
    """Shapes of what a network gives; for those of maps it sees a black image, in the mode that it is left in."""
    if not maps:
        return Shapes(network.feat_dim)
    training, device = network.training, next(network.parameters()).device
    black = torch.zeros(1, 3, *network.input_spec.size, device=device)
    quality = (torch.zeros(1, device=device),) if network.needs_quality else ()
    network.eval()
    outputs = outputs_of(network.features(black, *quality))
    network.train(training)
    return Shapes(outputs.embedding.shape[1], tuple((one.shape[1], one.shape[2], one.shape[3]) for one in outputs.maps))
