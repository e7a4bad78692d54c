"""TF-NAS-A: inverted bottlenecks whose widths, kernels and gates were searched for."""

from typing import ClassVar

from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.layers.conv_norm import Activation, ConvNorm
from facelab.backbone.layers.mbconv import InvertedBottleneck
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import MAX_WIDTH, last_map_size
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

HALVINGS = 4
STEM_CHANNELS, LAST_CHANNELS = 32, 1280
RELU_STAGES = 2  # their activation is ReLU, that of the others swish

# Inner channels, channels of the gate, output channels, kernel and stride of each block of each stage.
STAGES: tuple[tuple[tuple[int, int, int, int, int], ...], ...] = (
    ((32, 8, 16, 3, 1),),
    ((83, 32, 24, 3, 2), (128, 0, 24, 5, 1)),
    ((138, 48, 40, 3, 2), (297, 0, 40, 3, 1), (170, 80, 40, 5, 1)),
    ((248, 80, 80, 5, 2), (500, 0, 80, 3, 1), (424, 0, 80, 3, 1), (477, 0, 80, 3, 1)),
    ((504, 160, 112, 3, 1), (796, 0, 112, 3, 1), (723, 224, 112, 3, 1), (555, 224, 112, 3, 1)),
    ((813, 0, 192, 3, 2), (1370, 0, 192, 3, 1), (1138, 384, 192, 3, 1), (1359, 384, 192, 3, 1)),
    ((1203, 384, 320, 5, 1),),
)
PUBLISHED_PARTS = {
    "inverted_bottleneck": "expand",
    "depth_conv": "depthwise",
    "squeeze_excite": "squeeze",
    "point_linear": "project",
}
PUBLISHED_LAYERS = {"conv": "conv", "bn": "norm", "conv_reduce": "reduce", "conv_expand": "expand"}
PUBLISHED_ENDS = {"first_stem": "stem", "feature_mix_layer": "last"}
PUBLISHED_OUTPUT = {"2": "fc", "3": "last_norm"}


@BACKBONES.register("TF-NAS-A")
class TFNASA(Backbone):
    """TF-NAS-A (Hu et al., ECCV 2020, arXiv:2008.05314, Fig. 6), as built by FaceX-Zoo: the stem keeps the resolution.

    The network ends with a linear 1x1 convolution to 1280 channels, dropout, flatten, linear and BatchNorm.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        width: Factor on every number of channels, rounded; above 0, at most 8.
        drop_rate: Dropout before the linear layer; from 0 up to but not including 1.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="hu2020tfnas",
        title="TF-NAS: Rethinking Three Search Freedoms of Latency-Constrained Differentiable Neural "
        "Architecture Search",
        authors="Hu, Yibo and Wu, Xiang and He, Ran",
        venue="ECCV",
        year=2020,
        arxiv="2008.05314",
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
        in_range("TF-NAS-A width", width, 0.0, MAX_WIDTH, low_open=True)
        in_range("TF-NAS-A drop_rate", drop_rate, 0.0, 1.0, high_open=True)
        height, wide = last_map_size("TF-NAS-A", input_spec, HALVINGS)
        channels = _scaled(STEM_CHANNELS, width)
        self.stem = ConvNorm(3, channels, 3, act="relu")
        self.stages = nn.ModuleList()
        for number, rows in enumerate(STAGES):
            act: Activation = "relu" if number < RELU_STAGES else "silu"
            self.stages.append(Blocks(*_stage(channels, rows, width, act), checkpointing=checkpointing))
            channels = _scaled(rows[-1][2], width)
        last = _scaled(LAST_CHANNELS, width)
        self.last = ConvNorm(channels, last)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(last * height * wide, feat_dim)
        self.last_norm = nn.BatchNorm1d(feat_dim)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the maps of the seven stages of normalised images (B, 3, H, W)."""
        maps, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        embedding = self.last_norm(self.fc(self.dropout(self.last(x)).flatten(1)))
        return Features(embedding, maps=tuple(maps))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's TF-NAS-A."""
        match name.split("."):
            case ["output_layer", index, tensor]:
                return f"{PUBLISHED_OUTPUT[index]}.{tensor}"
            case [end, layer, tensor]:
                return f"{PUBLISHED_ENDS[end]}.{PUBLISHED_LAYERS[layer]}.{tensor}"
            case ["second_stem", part, layer, tensor]:
                return f"stages.0.0.{PUBLISHED_PARTS[part]}.{PUBLISHED_LAYERS[layer]}.{tensor}"
            case [stage, place, part, layer, tensor]:
                block = f"stages.{int(stage.removeprefix('stage'))}.{place}"
                return f"{block}.{PUBLISHED_PARTS[part]}.{PUBLISHED_LAYERS[layer]}.{tensor}"
        raise KeyError(name)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _stage(
    channels: int, rows: tuple[tuple[int, int, int, int, int], ...], width: float, act: Activation
) -> list[nn.Module]:
    """The blocks of a stage behind a map of ``channels``."""
    blocks: list[nn.Module] = []
    for inner, squeeze, outputs, kernel, stride in rows:
        gate = _scaled(squeeze, width) if squeeze else 0
        wide, narrow = _scaled(inner, width), _scaled(outputs, width)
        blocks.append(InvertedBottleneck(channels, wide, narrow, kernel, stride, squeeze=gate, act=act))
        channels = narrow
    return blocks
