"""ResNeSt: residual networks whose 3x3 convolutions are split into paths that attention weighs."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.iresnet import INITIALS
from facelab.backbone.layers.conv_norm import ConvNorm
from facelab.backbone.layers.output_layer import FACEXZOO_OUTPUT, OutputLayer
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import last_map_size, scaled_channels
from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.inputs import InputSpec

HALVINGS = 4
MAX_RADIX = 16
CHANNELS = (64, 128, 256, 512)
EXPANSION = 4
ATTENTION_REDUCTION, MIN_ATTENTION = 4, 32
# Channels of the stem and blocks of the four stages.
DEPTHS: dict[int, tuple[int, tuple[int, int, int, int]]] = {
    50: (64, (3, 4, 6, 3)),
    101: (128, (3, 4, 23, 3)),
    200: (128, (3, 24, 36, 3)),
    269: (128, (3, 30, 48, 8)),
}
PUBLISHED_STEM = {"0": "stem.conv", "1": "stem.norm", "2": "stem.act"}
PUBLISHED_LAYERS = {
    "conv1": "reduce.conv",
    "bn1": "reduce.norm",
    "conv2": "split",
    "conv3": "expand.conv",
    "bn3": "expand.norm",
    "downsample": "shortcut",
}
PUBLISHED_SPLIT = {"conv": "paths.conv", "bn0": "paths.norm", "fc1": "fc1", "bn1": "norm", "fc2": "fc2"}
PUBLISHED_SHORTCUT = {"1": "1.conv", "2": "1.norm"}


class SplitAttention(nn.Module):
    """A 3x3 convolution in ``radix`` paths, summed with weights from their mean (Zhang et al., Eqs. 1-3).

    Args:
        channels: C of the input and of the output.
        radix: Number of paths; one is gated by a sigmoid, more by a softmax among them.

    Raises:
        ConfigError: If the channels cannot be shared out among the paths.
    """

    def __init__(self, channels: int, radix: int) -> None:
        super().__init__()
        if channels % radix:
            raise ConfigError(
                f"ResNeSt radix is {radix}, but {channels} channels are no multiple of that; 1, 2, 4 and 8 always fit."
            )
        self.radix = radix
        hidden = max(channels * radix // ATTENTION_REDUCTION, MIN_ATTENTION)
        self.paths = ConvNorm(channels, channels * radix, 3, groups=radix, act="relu")
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, channels * radix, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        paths = self.paths(x).chunk(self.radix, dim=1)
        mean = _total(paths).mean((2, 3), keepdim=True, dtype=self.fc1.weight.dtype)
        weights = self._weights(mean).to(paths[0].dtype)
        return _total([path * weights[:, place] for place, path in enumerate(paths)])

    def _weights(self, mean: Tensor) -> Tensor:
        """(B, C, 1, 1) -> (B, radix, C, 1, 1), which sum to 1 over the paths.

        Outside autocast: the norm sees one value an image, so it would blow up the rounding of bf16.
        """
        kind = mean.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            hidden = F.relu(self.norm(self.fc1(mean)))
            logits = self.fc2(hidden).unflatten(1, (self.radix, -1))
            weights: Tensor = logits.softmax(1) if self.radix > 1 else logits.sigmoid()
        return weights


def _total(terms: Sequence[Tensor]) -> Tensor:
    """The sum from left to right, which is the order of the original."""
    return reduce(torch.add, terms)


class Block(nn.Module):
    """1x1 convolution, split attention, mean pooling where the map shrinks, 1x1 convolution; added to the shortcut.

    Args:
        inputs: Channels of the input.
        inner: Channels between the 1x1 convolutions; the output has four times as many.
        stride: 1 or 2.
        radix: Paths of the split attention.
    """

    def __init__(self, inputs: int, inner: int, stride: int, radix: int) -> None:
        super().__init__()
        outputs = inner * EXPANSION
        self.reduce = ConvNorm(inputs, inner, act="relu")
        self.split = SplitAttention(inner, radix)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.expand = ConvNorm(inner, outputs)
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 inner, H / stride, W / stride), rounded up."""
        residual: Tensor = self.expand(self.pool(self.split(self.reduce(x))))
        return F.relu(residual + self.shortcut(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    # At an odd size the last windows reach beyond the map; they are means of what is there.
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, ConvNorm(inputs, outputs))


@BACKBONES.register("ResNeSt")
class ResNeSt(Backbone):
    """ResNeSt (Zhang et al., CVPR Workshops 2022, arXiv:2004.08955, Sec. 3), as built by FaceX-Zoo.

    The stem is one convolution that keeps the resolution, all four stages halve it, and the whole last map goes through
    an `OutputLayer`. FaceX-Zoo's stem has 64 channels at every depth, while the bodies of 101, 200 and 269 expect the
    paper's 128, so that only 50 runs there; here the stem gives what the body expects.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        depth: 50, 101, 200 or 269.
        width: Factor on every number of channels, rounded to multiples of 8; above 0, at most 8.
        radix: Paths of the split attention, 1 to 16; a divisor of the channels of each stage.
        drop_rate: Dropout before the linear layer, from 0 up to but not including 1.
        unit_norm: Whether embeddings are divided by their norm, as FaceX-Zoo's are. Heads that read quality from the
            norm (MagFace, AdaFace) need false.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="zhang2022resnest",
        title="ResNeSt: Split-Attention Networks",
        authors="Zhang, Hang and Wu, Chongruo and Zhang, Zhongyue and Zhu, Yi and Lin, Haibin and Zhang, Zhi and "
        "Sun, Yue and He, Tong and Mueller, Jonas and Manmatha, R. and Li, Mu and Smola, Alexander",
        venue="CVPR Workshops",
        year=2022,
        arxiv="2004.08955",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        depth: int = 50,
        width: float = 1.0,
        radix: int = 2,
        drop_rate: float = 0.4,
        unit_norm: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim, unit_norm=unit_norm)
        if depth not in DEPTHS:
            raise ConfigError(f"ResNeSt depth is {depth!r}. Known: {', '.join(map(str, DEPTHS))}.")
        in_range("ResNeSt radix", radix, 1, MAX_RADIX)
        map_size = last_map_size("ResNeSt", input_spec, HALVINGS)
        stem, depths = DEPTHS[depth]
        channels = scaled_channels(stem, width)
        self.stem = ConvNorm(3, channels, 3, act="prelu")
        self.stages = nn.ModuleList()
        for base, count in zip(CHANNELS, depths, strict=True):
            inner = scaled_channels(base, width)
            others = [Block(inner * EXPANSION, inner, 1, radix) for _ in range(count - 1)]
            first = Block(channels, inner, 2, radix)
            self.stages.append(Blocks(first, *others, checkpointing=checkpointing))
            channels = inner * EXPANSION
        self.output = OutputLayer(channels, map_size, feat_dim, drop_rate=drop_rate)
        self.stages.apply(INITIALS["kaiming"])

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the maps of the four stages of normalised images (B, 3, H, W)."""
        maps, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        embedding = self.output(x)
        return Features(F.normalize(embedding) if self.unit_norm else embedding, maps=tuple(maps))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's ResNeSt."""
        match name.split("."):
            case ["input_layer", index, tensor]:
                return f"{PUBLISHED_STEM[index]}.{tensor}"
            case ["output_layer", index, tensor]:
                return f"output.{FACEXZOO_OUTPUT[index]}.{tensor}"
            case ["body", stage, place, layer, *rest]:
                block = f"stages.{int(stage.removeprefix('layer')) - 1}.{place}.{PUBLISHED_LAYERS[layer]}"
                return f"{block}.{_inner_name(layer, rest)}"
        raise KeyError(name)


def _inner_name(layer: str, rest: list[str]) -> str:
    tables = {"conv2": PUBLISHED_SPLIT, "downsample": PUBLISHED_SHORTCUT}
    match rest:
        case [tensor]:
            return tensor
        case [part, tensor]:
            return f"{tables[layer][part]}.{tensor}"
    raise KeyError(".".join([layer, *rest]))
