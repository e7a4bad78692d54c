"""ReXNet: inverted bottlenecks whose width grows by the same amount from block to block."""

import math
from collections.abc import Iterator
from itertools import accumulate, chain, repeat
from typing import ClassVar

import torch
from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.layers.conv_norm import ConvNorm, SqueezeExcite
from facelab.backbone.layers.output_layer import FACEXZOO_OUTPUT, OutputLayer
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import MAX_WIDTH, last_map_size
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

HALVINGS = 4
STEM_CHANNELS = 32
LAST_CHANNELS = 512
EXPANSION = 6
MAX_DEPTH = 8.0
# Blocks of each stage, whether its first one halves, and whether it has squeeze-and-excitation if that is wanted.
STAGES = ((1, False, False), (2, True, False), (2, True, True), (3, True, True), (3, False, True), (5, True, True))
PUBLISHED_FIRST = 3  # place of the first block in the published list of layers
PUBLISHED_SQUEEZE = {"0": "reduce", "1": "norm", "3": "expand"}
PUBLISHED_STEM = {"0": "stem.conv", "1": "stem.norm"}


class LinearBottleneck(nn.Module):
    """Expand (swish) - 3x3 filter [- squeeze] - ReLU6 - project linearly; the input is added to the first channels.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        expansion: Factor on the channels inside; 1 leaves out the expansion.
        stride: 1 or 2.
        squeeze: Reduction of the squeeze-and-excitation gate; 0 for none.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, squeeze: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.halves = stride > 1
        self.kept = inputs if stride == 1 and inputs <= outputs else 0
        self.expand = ConvNorm(inputs, inner, act="silu") if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, 3, stride=stride, groups=inner)
        self.squeeze = SqueezeExcite(inner, max(1, inner // squeeze), norm=True) if squeeze else nn.Identity()
        self.act = nn.ReLU6()
        self.project = ConvNorm(inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        # As published: the gate stands before the ReLU6, in EfficientNet behind the activation.
        output: Tensor = self.project(self.act(self.squeeze(self.depthwise(self.expand(x)))))
        if not self.kept:
            return output
        return torch.cat((output[:, : self.kept] + x, output[:, self.kept :]), dim=1)


def growing_channels(first: int, step: float, width: float) -> Iterator[int]:
    """Output channels of one block after the other; a width below 1 scales only what is added to the first."""
    start = first / min(width, 1.0)
    # Added up one by one, as in the published programs: rounding of halves depends on it.
    return (max(1, round(channels * width)) for channels in accumulate(chain((start,), repeat(step))))


@BACKBONES.register("ReXNet")
class ReXNet(Backbone):
    """ReXNet (Han et al., CVPR 2021, arXiv:2007.00992, Sec. 4), as built by FaceX-Zoo: the stem keeps the resolution.

    The blocks of the first stage do not expand. The network ends with a 1x1 convolution to 512 channels (times
    ``width``, rounded down) and an `OutputLayer`. FaceX-Zoo's program fails at every ``width`` but 1; its published row
    is without squeeze-and-excitation.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        first_channels: Output channels of the first block at width 1.
        added_channels: Channels that the last block has more than the first, at width 1.
        width: Factor on every number of channels; above 0, at most 8.
        depth: Factor on the number of blocks of each stage, rounded up; above 0, at most 8.
        squeeze: Reduction of the squeeze-and-excitation gates from the third stage on, 12 in the paper; 0 for none.
        drop_rate: Dropout before the last linear layer; from 0 up to but not including 1.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="han2021rexnet",
        title="Rethinking Channel Dimensions for Efficient Model Design",
        authors="Han, Dongyoon and Yun, Sangdoo and Heo, Byeongho and Yoo, YoungJoon",
        venue="CVPR",
        year=2021,
        arxiv="2007.00992",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        first_channels: int = 16,
        added_channels: int = 180,
        width: float = 1.0,
        depth: float = 1.0,
        squeeze: int = 0,
        drop_rate: float = 0.2,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        in_range("ReXNet first_channels", first_channels, 1, math.inf)
        in_range("ReXNet added_channels", added_channels, 0, math.inf)
        in_range("ReXNet width", width, 0.0, MAX_WIDTH, low_open=True)
        in_range("ReXNet depth", depth, 0.0, MAX_DEPTH, low_open=True)
        in_range("ReXNet squeeze", squeeze, 0, math.inf)
        map_size = last_map_size("ReXNet", input_spec, HALVINGS)
        repeats = [math.ceil(blocks * depth) for blocks, _, _ in STAGES]
        widths = growing_channels(first_channels, added_channels / sum(repeats), width)
        channels = max(1, round(STEM_CHANNELS * max(width, 1.0)))  # narrow networks keep the whole stem
        self.stem = ConvNorm(3, channels, 3, act="silu")
        blocks: list[LinearBottleneck] = []
        for stage, (blocks_here, (_, halves, gated)) in enumerate(zip(repeats, STAGES, strict=True)):
            expansion = EXPANSION if stage else 1
            for place in range(blocks_here):
                outputs = next(widths)
                stride = 2 if halves and place == 0 else 1
                blocks.append(LinearBottleneck(channels, outputs, expansion, stride, squeeze if gated else 0))
                channels = outputs
        last = max(1, int(LAST_CHANNELS * width))
        self.blocks = Blocks(*blocks, checkpointing=checkpointing)
        self.last = ConvNorm(channels, last, act="silu")
        self.output = OutputLayer(last, map_size, feat_dim, drop_rate=drop_rate)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the last map of each of the five sizes of normalised images (B, 3, H, W)."""
        maps, x = [], self.stem(image)
        for block in self.blocks:
            if block.halves:
                maps.append(x)
            x = self.blocks.step(block, x)
        x = self.last(x)
        return Features(self.output(x), maps=(*maps, x))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's ReXNet."""
        last = PUBLISHED_FIRST + len(self.blocks)
        match name.split("."):
            case ["output_layer", index, tensor]:
                return f"output.{FACEXZOO_OUTPUT[index]}.{tensor}"
            case ["features", index, "out", *rest]:
                place = int(index) - PUBLISHED_FIRST
                return f"blocks.{place}.{_block_name(self.blocks[place], rest)}"
            case ["features", index, tensor] if int(index) >= last:
                return f"last.{'conv' if int(index) == last else 'norm'}.{tensor}"
            case ["features", index, tensor]:
                return f"{PUBLISHED_STEM[index]}.{tensor}"
        raise KeyError(name)


def _block_name(block: nn.Module, rest: list[str]) -> str:
    """Name inside a block from the place in its published list, which has no place for what the block lacks."""
    expands, gated = isinstance(block.expand, ConvNorm), isinstance(block.squeeze, SqueezeExcite)
    expand = ("expand.conv", "expand.norm", "act") if expands else ()
    squeeze = ("squeeze",) if gated else ()
    layers = (*expand, "depthwise.conv", "depthwise.norm", *squeeze, "act", "project.conv", "project.norm")
    match rest:
        case [index, "fc", inner, tensor]:
            return f"{layers[int(index)]}.{PUBLISHED_SQUEEZE[inner]}.{tensor}"
        case [index, tensor]:
            return f"{layers[int(index)]}.{tensor}"
    raise KeyError(".".join(rest))
