"""LightCNN: convolutions whose channels compete in pairs, without any norm before the output."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.layers.output_layer import FACEXZOO_OUTPUT, OutputLayer
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import last_map_size, scaled_channels
from facelab.citation import Citation
from facelab.errors import ConfigError
from facelab.inputs import InputSpec

Pool = Literal["max", "max_mean"]
HALVINGS = 4
STEM_CHANNELS = 48
GROUP_CHANNELS = (96, 192, 128, 128)
# Residual blocks before each of the four groups, and how maps are halved, by the number of convolutions.
FORMS: dict[int, tuple[tuple[int, int, int, int], Pool]] = {9: ((0, 0, 0, 0), "max"), 29: ((1, 2, 3, 4), "max_mean")}
NOT_HALVED = 2  # the third group is followed by the fourth at the same resolution


class MaxFeatureMap(nn.Module):
    """Convolution with bias, of whose channels each competes with that half as many further on (Wu et al., Eq. 2).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output; the convolution makes twice as many.
        kernel: Side of the kernel, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        first, second = self.conv(x).chunk(2, dim=1)
        return torch.maximum(first, second)


class ResidualPair(nn.Module):
    """Two 3x3 max-feature-map convolutions, plus their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = MaxFeatureMap(channels, channels, 3)
        self.conv2 = MaxFeatureMap(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        output: Tensor = self.conv2(self.conv1(x)) + x
        return output


class Group(nn.Module):
    """A 1x1 and a 3x3 max-feature-map convolution; the second changes the number of channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = MaxFeatureMap(inputs, inputs, 1)
        self.filter = MaxFeatureMap(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        output: Tensor = self.filter(self.mix(x))
        return output


@BACKBONES.register("LightCNN")
class LightCNN(Backbone):
    """LightCNN-9 and LightCNN-29 (Wu et al., TIFS 2018, arXiv:1511.02683, Tables 1 and 3), as built by FaceX-Zoo.

    Differs from the paper as FaceX-Zoo does: images have colours, LightCNN-29 halves by the sum of maximum and mean
    (its second version), and the output is an `OutputLayer`. Odd maps are halved upwards. FaceX-Zoo's program cannot
    build LightCNN-9, and fails at 60x112.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        depth: Number of convolutions: 9 or 29.
        width: Factor on every number of channels, rounded to multiples of 8; above 0, at most 8.
        drop_rate: Dropout before the last linear layer; from 0 up to but not including 1.
        checkpointing: Compute the blocks and groups again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wu2018light",
        title="A Light CNN for Deep Face Representation with Noisy Labels",
        authors="Wu, Xiang and He, Ran and Sun, Zhenan and Tan, Tieniu",
        venue="IEEE Transactions on Information Forensics and Security",
        year=2018,
        arxiv="1511.02683",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        depth: int = 29,
        width: float = 1.0,
        drop_rate: float = 0.2,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        if depth not in FORMS:
            raise ConfigError(f"backbone 'LightCNN' has depth 9 or 29, not {depth}.")
        repeats, self.pool = FORMS[depth]
        map_size = last_map_size("LightCNN", input_spec, HALVINGS)
        channels = scaled_channels(STEM_CHANNELS, width)
        self.stem = MaxFeatureMap(3, channels, 5)
        self.blocks, self.groups = nn.ModuleList(), Blocks(checkpointing=checkpointing)
        for base, number in zip(GROUP_CHANNELS, repeats, strict=True):
            outputs = scaled_channels(base, width)
            self.blocks.append(Blocks(*(ResidualPair(channels) for _ in range(number)), checkpointing=checkpointing))
            self.groups.append(Group(channels, outputs))
            channels = outputs
        self.output = OutputLayer(channels, map_size, feat_dim, drop_rate=drop_rate)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the four halved maps of normalised images (B, 3, H, W)."""
        maps = [self._halved(self.stem(image))]
        x = maps[0]
        for number, (blocks, group) in enumerate(zip(self.blocks, self.groups, strict=True)):
            x = self.groups.step(group, blocks(x))
            if number != NOT_HALVED:
                x = self._halved(x)
                maps.append(x)
        return Features(self.output(x), maps=tuple(maps))

    def _halved(self, x: Tensor) -> Tensor:
        largest = F.max_pool2d(x, 2, ceil_mode=True)
        return largest if self.pool == "max" else largest + F.avg_pool2d(x, 2, ceil_mode=True)

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's LightCNN-29."""
        match name.split("."):
            case ["conv1", "filter", tensor]:
                return f"stem.conv.{tensor}"
            case ["output_layer", index, tensor]:
                return f"output.{FACEXZOO_OUTPUT[index]}.{tensor}"
            case [block, place, "conv1" | "conv2" as layer, "filter", tensor] if block.startswith("block"):
                return f"blocks.{int(block.removeprefix('block')) - 1}.{place}.{layer}.conv.{tensor}"
            case [group, "conv_a" | "conv" as layer, "filter", tensor] if group.startswith("group"):
                part = "mix" if layer == "conv_a" else "filter"
                return f"groups.{int(group.removeprefix('group')) - 1}.{part}.conv.{tensor}"
        raise KeyError(name)
