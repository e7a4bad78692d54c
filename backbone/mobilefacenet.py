"""MobileFaceNet: inverted bottlenecks and a global depthwise convolution."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.iresnet import INITIALS, Initial
from facelab.backbone.layers.activation import PReLU
from facelab.backbone.layers.fused_norm import NormBlock
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import last_map_size, scaled_channels
from facelab.backbone.names.mobilefacenet import mobilefacenet_name
from facelab.citation import Citation
from facelab.errors import in_range, one_of
from facelab.inputs import InputSpec

STEM_CHANNELS = 64
LAST_CHANNELS = 512
HALVINGS = 4
MAX_STREAM = 16
FIRST_EXPANSION = 128

# Channels, expansion of the first (strided) and of the other bottlenecks of the stages behind the stem.
STAGES = ((64, 128, 128), (128, 256, 256), (128, 512, 256))


class ConvUnit(NormBlock):
    """Convolution, BatchNorm and, unless ``linear``, a PReLU per channel."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.reduces_channelwise = groups > 1 and (stride > 1 or padding == 0)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.Identity() if linear else PReLU(outputs)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride), to which ``residual`` is added."""
        return self.normed(self._convolve(x), self.norm, self.act, residual)

    def _convolve(self, x: Tensor) -> Tensor:
        """On a CPU the gradient of a strided depthwise convolution is ten times slower in bf16 than in fp32."""
        if self.reduces_channelwise and self.training and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                filtered: Tensor = self.conv(x.to(self.conv.weight.dtype))
            return filtered.to(x.dtype)
        output: Tensor = self.conv(x)
        return output


class Bottleneck(nn.Module):
    """Expand by a 1x1 convolution, filter each channel by a 3x3 one, project linearly; add the input if stride is 1."""

    def __init__(self, inputs: int, outputs: int, expanded: int, *, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        self.expand = ConvUnit(inputs, expanded)
        self.depthwise = ConvUnit(expanded, expanded, 3, stride=stride, padding=1, groups=expanded)
        self.project = ConvUnit(expanded, outputs, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        output: Tensor = self.project(self.depthwise(self.expand(x)), x if self.residual else None)
        return output


def _stage(inputs: int, outputs: int, first: int, others: int, repeats: int) -> list[nn.Module]:
    """A bottleneck of stride 2 and ``repeats`` residual ones."""
    strided = Bottleneck(inputs, outputs, first, stride=2)
    return [strided, *(Bottleneck(outputs, outputs, others, stride=1) for _ in range(repeats))]


def _stem(narrow: int, stream: int, expanded: int, units: int) -> list[nn.Module]:
    """A strided convolution and a grouped one, or several residual bottlenecks in its place."""
    channels = narrow * stream
    first = ConvUnit(3, channels, 3, stride=2, padding=1)
    if units == 1:
        return [first, ConvUnit(channels, channels, 3, padding=1, groups=narrow)]
    return [first, *(Bottleneck(channels, channels, expanded, stride=1) for _ in range(units))]


@BACKBONES.register("MobileFaceNet")
class MobileFaceNet(Backbone):
    """MobileFaceNet (Chen et al., CCBR 2018, arXiv:1804.07573, Table 1), as built by FaceX-Zoo.

    InsightFace's ``mbf`` and ``mbf_large`` are the same network with wider maps between the bottlenecks (``stream``)
    and, the large one, more of them (``depths``). All depart from Table 1 in that the embedding has 512 instead of 128
    dimensions and comes from a linear layer with BatchNorm. `features` gives four maps of stride 2, 4, 8 and 16 with
    64, 64, 128 and 512 channels (times ``width``, and all but the last times ``stream``).

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        width: Factor on every number of channels, rounded to multiples of 8; above 0, at most 8.
        stream: Further factor on the channels between bottlenecks, 1 to 16; ``mbf`` has 2, ``mbf_large`` 4.
        depths: Units behind the stem's first convolution (1 is a grouped convolution, more are bottlenecks), and the
            residual bottlenecks of the three stages.
        drop_rate: Dropout before the linear layer, from 0 up to but not including 1.
        initial: Convolutions start ``uniform`` (PyTorch's default), ``kaiming`` (fan-out, InsightFace) or ``normal``.
        checkpointing: Compute the units again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="chen2018mobilefacenets",
        title="MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices",
        authors="Chen, Sheng and Liu, Yang and Gao, Xiang and Han, Zhen",
        venue="CCBR",
        year=2018,
        arxiv="1804.07573",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        width: float = 1.0,
        stream: int = 1,
        depths: tuple[int, int, int, int] = (1, 4, 6, 2),
        drop_rate: float = 0.0,
        initial: Initial = "uniform",
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        in_range("MobileFaceNet stream", stream, 1, MAX_STREAM)
        in_range("MobileFaceNet drop_rate", drop_rate, 0.0, 1.0, high_open=True)
        one_of("MobileFaceNet initial", initial, tuple(INITIALS))
        for depth in depths:
            in_range("MobileFaceNet depths", depth, 1, 1000)
        map_size = last_map_size("MobileFaceNet", input_spec, HALVINGS)
        narrow, last = scaled_channels(STEM_CHANNELS, width), scaled_channels(LAST_CHANNELS, width)
        stages = [_stem(narrow, stream, scaled_channels(FIRST_EXPANSION, width), depths[0])]
        channels = narrow * stream
        for sizes, repeats in zip(STAGES, depths[1:], strict=True):
            outputs, first, others = (scaled_channels(size, width) for size in sizes)
            stages.append(_stage(channels, outputs * stream, first, others, repeats))
            channels = outputs * stream
        stages[-1].append(ConvUnit(channels, last))
        self.depths = depths
        self.stages = nn.ModuleList(Blocks(*stage, checkpointing=checkpointing) for stage in stages)
        # Not a mean: each place of the map has its own weight, as corners see less of the face than the middle.
        self.global_depthwise = ConvUnit(last, last, map_size, groups=last, linear=True)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(last, feat_dim, bias=False)
        self.last_norm = nn.BatchNorm1d(feat_dim)
        self.apply(INITIALS[initial])

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the four maps of normalised images (B, 3, H, W)."""
        maps, x = [], image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        embedding = self.last_norm(self.fc(self.dropout(self.global_depthwise(x).flatten(1))))
        return Features(embedding, maps=tuple(maps))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's or InsightFace's MobileFaceNet."""
        return mobilefacenet_name(name, last_unit=self.depths[-1] + 1)
