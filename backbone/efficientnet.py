"""EfficientNet: inverted bottlenecks, scaled in width and depth together."""

import math
from typing import ClassVar

from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.layers.conv_norm import ConvNorm
from facelab.backbone.layers.mbconv import InvertedBottleneck
from facelab.backbone.layers.output_layer import FACEXZOO_OUTPUT, OutputLayer
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import MAX_WIDTH, divisible, last_map_size
from facelab.backbone.layers.transformer import rising_rates
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

DIVISOR = 8
HALVINGS = 4
# As in the TensorFlow original, whose momentum of 0.99 is 0.01 as PyTorch counts it.
EPS, MOMENTUM = 1e-3, 0.01
SQUEEZE = 4
MAX_DEPTH = 8.0
STEM_CHANNELS, LAST_CHANNELS = 32, 1280
IMAGENET_CLASSES = 1000

# Blocks, kernel, expansion, channels, and whether the first block halves, of each stage.
STAGES = (
    (1, 3, 1, 16, False),
    (2, 3, 6, 24, True),
    (2, 5, 6, 40, True),
    (3, 3, 6, 80, True),
    (3, 5, 6, 112, False),
    (4, 5, 6, 192, True),
    (1, 3, 6, 320, False),
)
CENTRED = 5  # the stage whose halving is padded on both sides alike; the others as TensorFlow pads even maps
PUBLISHED_PARTS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_se_reduce": "squeeze.reduce",
    "_se_expand": "squeeze.expand",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
PUBLISHED_ENDS = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "last.conv",
    "_bn1": "last.norm",
    "_fc": "classifier",
}


@BACKBONES.register("EfficientNet")
class EfficientNet(Backbone):
    """EfficientNet (Tan and Le, ICML 2019, arXiv:1905.11946, Table 1), as built by FaceX-Zoo.

    The stem keeps the resolution, and an `OutputLayer` takes the place of pooling. FaceX-Zoo pads each layer of
    stride 2 for an image half as large as it is, which moves the filters of the last one by a pixel; so does ours, at
    every size. FaceX-Zoo's program fails at every ``width`` but 1, and carries ImageNet's unused classifier.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        width: Factor on every number of channels, rounded to multiples of 8; above 0, at most 8.
        depth: Factor on the number of blocks of each stage, rounded up; above 0, at most 8.
        drop_rate: Dropout before the last linear layer; from 0 up to but not including 1.
        drop_path_rate: Stochastic depth of the last block; it rises from 0.
        published_extras: Carry the unused classifier, so that released weights load tensor by tensor; it is frozen.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="tan2019efficientnet",
        title="EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        authors="Tan, Mingxing and Le, Quoc V.",
        venue="ICML",
        year=2019,
        arxiv="1905.11946",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        width: float = 1.0,
        depth: float = 1.0,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.2,
        *,
        published_extras: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        in_range("EfficientNet width", width, 0.0, MAX_WIDTH, low_open=True)
        in_range("EfficientNet depth", depth, 0.0, MAX_DEPTH, low_open=True)
        in_range("EfficientNet drop_path_rate", drop_path_rate, 0.0, 1.0, high_open=True)
        last_map_size("EfficientNet", input_spec, HALVINGS)
        channels = divisible(STEM_CHANNELS * width, DIVISOR)
        self.stem = ConvNorm(3, channels, 3, act="silu", eps=EPS, momentum=MOMENTUM)
        self.blocks = Blocks(*_blocks(channels, width, depth, drop_path_rate), checkpointing=checkpointing)
        channels = divisible(STAGES[-1][3] * width, DIVISOR)
        last = divisible(LAST_CHANNELS * width, DIVISOR)
        self.last = ConvNorm(channels, last, act="silu", eps=EPS, momentum=MOMENTUM)
        self.output = OutputLayer(last, final_map(input_spec), feat_dim, drop_rate=drop_rate)
        if published_extras:
            self.classifier = nn.Linear(last, IMAGENET_CLASSES).requires_grad_(False)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the last map of each of the five sizes of normalised images (B, 3, H, W)."""
        maps, x = [], self.stem(image)
        for block in self.blocks:
            # What goes into a halving block is the last map of its size.
            if block.halves:
                maps.append(x)
            x = self.blocks.step(block, x)
        x = self.last(x)
        return Features(self.output(x), maps=(*maps, x))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's EfficientNet; none of its classifier's, unless this network has one."""
        match name.split("."):
            case ["_fc", _] if not hasattr(self, "classifier"):
                return None
            case ["output_layer", index, tensor]:
                return f"output.{FACEXZOO_OUTPUT[index]}.{tensor}"
            case ["_blocks", index, part, tensor]:
                return f"blocks.{index}.{PUBLISHED_PARTS[part]}.{tensor}"
            case [part, tensor]:
                return f"{PUBLISHED_ENDS[part]}.{tensor}"
        raise KeyError(name)


def _blocks(channels: int, width: float, depth: float, drop_path_rate: float) -> list[InvertedBottleneck]:
    """All blocks; ``channels`` are those of the stem."""
    rates = iter(rising_rates(drop_path_rate, sum(math.ceil(row[0] * depth) for row in STAGES)))
    blocks = []
    for number, (repeats, kernel, expansion, base, halves) in enumerate(STAGES):
        outputs = divisible(base * width, DIVISOR)
        for place in range(math.ceil(repeats * depth)):
            stride = 2 if halves and place == 0 else 1
            blocks.append(
                InvertedBottleneck(
                    channels,
                    channels * expansion,
                    outputs,
                    kernel,
                    stride,
                    # Of the block's input, not of the expanded map that the gate weighs.
                    squeeze=max(1, channels // SQUEEZE),
                    act="silu",
                    crop=int(stride > 1 and number != CENTRED),
                    drop_path=next(rates),
                    eps=EPS,
                    momentum=MOMENTUM,
                )
            )
            channels = outputs
    return blocks


def final_map(spec: InputSpec) -> tuple[int, int]:
    """(height, width) of the last map: three halvings round down, the last one rounds up."""
    height, width = (math.ceil(side // 2 ** (HALVINGS - 1) / 2) for side in spec.size)
    return height, width
