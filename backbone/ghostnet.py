"""GhostNet: half of every map from a convolution, the other half from cheap filters of the first."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.layers.conv_norm import Activation, ConvNorm, SqueezeExcite
from facelab.backbone.layers.output_layer import FACEXZOO_OUTPUT, OutputLayer
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import MAX_WIDTH, divisible, last_map_size
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

HALVINGS = 4
DIVISOR = 4
STEM_CHANNELS = 16
SQUEEZE_SHARE = 0.25

# Kernel, expanded channels, output channels, squeeze, of each bottleneck; the first of a stage but the first halves.
STAGES: tuple[tuple[tuple[int, int, int, bool], ...], ...] = (
    ((3, 16, 16, False),),
    ((3, 48, 24, False), (3, 72, 24, False)),
    ((5, 72, 40, True), (5, 120, 40, True)),
    (
        (3, 240, 80, False),
        (3, 200, 80, False),
        (3, 184, 80, False),
        (3, 184, 80, False),
        (3, 480, 112, True),
        (3, 672, 112, True),
    ),
    (
        (5, 672, 160, True),
        (5, 960, 160, False),
        (5, 960, 160, True),
        (5, 960, 160, False),
        (5, 960, 160, True),
    ),
)
# Where the ten groups of the published program begin: (stage, bottleneck).
PUBLISHED_GROUPS = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1), (4, 5))
PUBLISHED_STEM = {"conv_stem": "stem.conv", "bn1": "stem.norm"}
PUBLISHED_PARTS = {
    "primary_conv.0": "primary.conv",
    "primary_conv.1": "primary.norm",
    "cheap_operation.0": "cheap.conv",
    "cheap_operation.1": "cheap.norm",
    "conv_dw": "depthwise.conv",
    "bn_dw": "depthwise.norm",
    "se.conv_": "squeeze.",
    "shortcut.0": "shortcut.0.conv",
    "shortcut.1": "shortcut.0.norm",
    "shortcut.2": "shortcut.1.conv",
    "shortcut.3": "shortcut.1.norm",
    "bn1": "norm",
}


class Ghost(nn.Module):
    """Ghost module (Han et al., Sec. 3.1): a 1x1 convolution, and a 3x3 filter on each of its channels, side by side.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output, even.
        act: Activation of both halves.
    """

    def __init__(self, inputs: int, outputs: int, act: Activation) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = ConvNorm(inputs, half, act=act)
        self.cheap = ConvNorm(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        primary = self.primary(x)
        return torch.cat((primary, self.cheap(primary)), dim=1)


class GhostBottleneck(nn.Module):
    """Ghost module that expands - [strided filter] - [squeeze] - ghost module that projects linearly; plus shortcut.

    Args:
        inputs: Channels of the input.
        expanded: Channels between the two modules.
        outputs: Channels of the output.
        kernel: Side of the strided filters.
        stride: 1 or 2.
        squeeze: Whether there is a squeeze-and-excitation gate.
    """

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int, *, squeeze: bool) -> None:
        super().__init__()
        self.ghost1 = Ghost(inputs, expanded, "relu")
        self.depthwise = (
            ConvNorm(expanded, expanded, kernel, stride=stride, groups=expanded) if stride > 1 else nn.Identity()
        )
        hidden = divisible(expanded * SQUEEZE_SHARE, DIVISOR)
        self.squeeze = SqueezeExcite(expanded, hidden, gate="hard_sigmoid") if squeeze else nn.Identity()
        self.ghost2 = Ghost(expanded, outputs, "none")
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                ConvNorm(inputs, inputs, kernel, stride=stride, groups=inputs), ConvNorm(inputs, outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        branch: Tensor = self.ghost2(self.squeeze(self.depthwise(self.ghost1(x))))
        total: Tensor = branch + self.shortcut(x)
        return total


@BACKBONES.register("GhostNet")
class GhostNet(Backbone):
    """GhostNet (Han et al., CVPR 2020, arXiv:1911.11907, Table 1), as built by FaceX-Zoo.

    The stem keeps the resolution. The network ends with a 1x1 convolution to 960 channels and an `OutputLayer` instead
    of pooling. FaceX-Zoo's program fails at every ``width`` but 1, because it fixes these 960 channels.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        width: Factor on every number of channels, rounded to multiples of 4; above 0, at most 8.
        drop_rate: Dropout before the last linear layer; from 0 up to but not including 1.
        checkpointing: Compute the bottlenecks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="han2020ghostnet",
        title="GhostNet: More Features from Cheap Operations",
        authors="Han, Kai and Wang, Yunhe and Tian, Qi and Guo, Jianyuan and Xu, Chunjing and Xu, Chang",
        venue="CVPR",
        year=2020,
        arxiv="1911.11907",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        width: float = 1.0,
        drop_rate: float = 0.2,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        in_range("GhostNet width", width, 0.0, MAX_WIDTH, low_open=True)
        map_size = last_map_size("GhostNet", input_spec, HALVINGS)
        channels = divisible(STEM_CHANNELS * width, DIVISOR)
        self.stem = ConvNorm(3, channels, 3, act="relu")
        expanded = channels
        stages: list[list[nn.Module]] = []
        for number, rows in enumerate(STAGES):
            stages.append([])
            for place, (kernel, wide, narrow, squeeze) in enumerate(rows):
                expanded, outputs = divisible(wide * width, DIVISOR), divisible(narrow * width, DIVISOR)
                stride = 2 if number > 0 and place == 0 else 1
                stages[-1].append(GhostBottleneck(channels, expanded, outputs, kernel, stride, squeeze=squeeze))
                channels = outputs
        # As wide as the last bottleneck is inside; FaceX-Zoo fixes 960, which holds at width 1 only.
        stages[-1].append(ConvNorm(channels, expanded, act="relu"))
        self.stages = nn.ModuleList(Blocks(*stage, checkpointing=checkpointing) for stage in stages)
        self.output = OutputLayer(expanded, map_size, feat_dim, drop_rate=drop_rate)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the maps of the five stages of normalised images (B, 3, H, W)."""
        maps, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(self.output(x), maps=tuple(maps))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's GhostNet."""
        match name.split("."):
            case ["conv_stem" | "bn1" as layer, tensor]:
                return f"{PUBLISHED_STEM[layer]}.{tensor}"
            case ["output_layer", index, tensor]:
                return f"output.{FACEXZOO_OUTPUT[index]}.{tensor}"
            case ["blocks", group, place, *rest]:
                stage, first = PUBLISHED_GROUPS[int(group)]
                inner = ".".join(rest)
                for theirs, ours in PUBLISHED_PARTS.items():
                    inner = inner.replace(theirs, ours)
                return f"stages.{stage}.{first + int(place)}.{inner}"
        raise KeyError(name)
