"""VarGFaceNet: grouped convolutions with a fixed number of channels in a group, not a fixed number of groups."""

import math
import re
from typing import ClassVar

from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.backbone.layers.activation import PReLU
from facelab.backbone.layers.conv_norm import Activation, ConvNorm, SqueezeExcite
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import last_map_size, scaled_channels
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

INPUT = InputSpec(colour="RGB", std=128.0)
HALVINGS = 4
GROUP = 8
# As in the symbol, whose momentum of 0.9 is 0.1 as PyTorch counts it.
EPS = 2e-5
EXPANSION = 2
SQUEEZE = 4
CHANNELS = (40, 80, 160, 320)
WIDE_CHANNELS, LAST_CHANNELS = 1024, 512

PUBLISHED_ENDS = {
    "head_conv1": "stem",
    "embed_convx": "widen",
    "embed_convx_depthwise": "global_grouped",
    "embed_convx_pointwise": "narrow",
}
PUBLISHED_SEPARABLES = {
    "shortcut": "shortcut",
    "sep1_data": "first",
    "sep2_data": "second",
    "sep1_data_branch": "left",
    "sep2_data_branch": "right",
}
PUBLISHED_SINGLES = {
    "sep1_data_act": "inner_act",
    "out_data_act": "act",
    "se_conv1": "squeeze.reduce",
    "se_act1": "squeeze.act",
    "se_conv2": "squeeze.expand",
}
PUBLISHED_LAYERS = {"": "conv", "_bn": "norm", "_act": "act"}
UNIT = re.compile(r"(?:head_head_pooling|stage_(\d+)_unit_(\d+))_(.+)")
SEPARABLE = re.compile(r"(.+)_conv2d_(depthwise|pointwise)(|_bn|_act)")
LAYER = re.compile(r"(.+?)(|_bn|_act)")


class Separable(nn.Module):
    """3x3 convolution in groups of 8 channels - BatchNorm - PReLU - dense 1x1 convolution - BatchNorm [- PReLU].

    Args:
        inputs: Channels of the input, a multiple of 8.
        outputs: Channels of the output.
        stride: 1 or 2.
        expansion: Channels between the convolutions, in units of ``inputs``.
        act: Activation at the end.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, expansion: int = 1, act: Activation) -> None:
        super().__init__()
        inner, groups = inputs * expansion, inputs // GROUP
        self.depthwise = ConvNorm(inputs, inner, 3, stride=stride, groups=groups, act="prelu", eps=EPS)
        self.pointwise = ConvNorm(inner, outputs, act=act, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        output: Tensor = self.pointwise(self.depthwise(x))
        return output


class NormalUnit(nn.Module):
    """Two separable convolutions and a squeeze-and-excitation gate, plus the input; then PReLU (Yan et al., Fig. 1a).

    Args:
        channels: C of input and output.
        stride: 1, or 2 for the head setting (Fig. 1d), whose input is projected.
        expansion: Of the separable convolutions.
    """

    def __init__(self, channels: int, *, stride: int = 1, expansion: int = EXPANSION) -> None:
        super().__init__()
        self.first = Separable(channels, channels, stride=stride, expansion=expansion, act="prelu")
        self.second = Separable(channels, channels, expansion=expansion, act="none")
        self.squeeze = SqueezeExcite(channels, channels // SQUEEZE, act="prelu")
        self.shortcut = (
            nn.Identity()
            if stride == 1
            else Separable(channels, channels, stride=stride, expansion=expansion, act="none")
        )
        self.act = PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride)."""
        output: Tensor = self.act(self.squeeze(self.second(self.first(x))) + self.shortcut(x))
        return output


class DownUnit(nn.Module):
    """Halves the map: two parallel separable convolutions, one on their sum, plus a third parallel one (Fig. 1b)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut, self.left, self.right = (
            Separable(inputs, outputs, stride=2, expansion=EXPANSION, act="none") for _ in range(3)
        )
        self.inner_act = PReLU(outputs)
        self.second = Separable(outputs, outputs, expansion=EXPANSION, act="none")
        self.act = PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        inner = self.inner_act(self.left(x) + self.right(x))
        output: Tensor = self.act(self.second(inner) + self.shortcut(x))
        return output


@BACKBONES.register("VarGFaceNet")
class VarGFaceNet(Backbone):
    """VarGFaceNet (Yan et al., ICCV Workshops 2019, arXiv:1910.04985, Table 1 and Fig. 1), as in its MXNet symbol.

    The published network takes pixels in 0..255 and computes (x - 127.5) / 128 itself; here `InputSpec` does that. The
    kernel that reduces the last map is as large as the map: 7x7 at 112x112, 7x6 at 112x96.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        width: Factor on every number of channels, rounded to multiples of 8; above 0, at most 8. 1 is the published
            network, which its authors call width 1.25.
        depths: Units that keep the size, in each of the three stages behind their first one.
        checkpointing: Compute the units again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="yan2019vargfacenet",
        title="VarGFaceNet: An Efficient Variable Group Convolutional Neural Network for Lightweight Face Recognition",
        authors="Yan, Mengjia and Zhao, Mengao and Xu, Zining and Zhang, Qian and Wang, Guoli and Su, Zhizhong",
        venue="ICCV Workshops",
        year=2019,
        arxiv="1910.04985",
    )

    def __init__(
        self,
        input_spec: InputSpec = INPUT,
        feat_dim: int = 512,
        width: float = 1.0,
        depths: tuple[int, int, int] = (2, 6, 3),
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        for depth in depths:
            in_range("VarGFaceNet depths", depth, 0, math.inf)
        map_size = last_map_size("VarGFaceNet", input_spec, HALVINGS)
        channels, *others = (scaled_channels(base, width) for base in CHANNELS)
        self.stem = ConvNorm(3, channels, 3, act="prelu", eps=EPS)
        self.stages = nn.ModuleList([Blocks(NormalUnit(channels, stride=2, expansion=1), checkpointing=checkpointing)])
        for outputs, depth in zip(others, depths, strict=True):
            units = [NormalUnit(outputs) for _ in range(depth)]
            self.stages.append(Blocks(DownUnit(channels, outputs), *units, checkpointing=checkpointing))
            channels = outputs
        wide, last = scaled_channels(WIDE_CHANNELS, width), scaled_channels(LAST_CHANNELS, width)
        self.widen = ConvNorm(channels, wide, act="prelu", eps=EPS)
        self.global_grouped = ConvNorm(wide, wide, map_size, groups=wide // GROUP, padding=0, eps=EPS)
        self.narrow = ConvNorm(wide, last, act="prelu", eps=EPS)
        self.fc = nn.Linear(last, feat_dim)
        self.last_norm = nn.BatchNorm1d(feat_dim, EPS)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the maps of the four stages of normalised images (B, 3, H, W)."""
        maps, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        vector = self.narrow(self.global_grouped(self.widen(x))).flatten(1)
        return Features(self.last_norm(self.fc(vector)), maps=tuple(maps))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of the MXNet symbol."""
        layer, _, tensor = name.removeprefix("vargface_").rpartition(".")
        tensor = "weight" if tensor == "slope" else tensor
        if layer in ("pre_fc1", "fc1"):
            return f"{'fc' if layer == 'pre_fc1' else 'last_norm'}.{tensor}"
        if unit := UNIT.fullmatch(layer):
            stage, place, inner = unit.groups()
            where = f"stages.{int(stage) - 1}.{int(place) - 1}" if stage else "stages.0.0"
            return f"{where}.{_unit_layer(inner)}.{tensor}"
        if end := LAYER.fullmatch(layer):
            return f"{PUBLISHED_ENDS[end[1]]}.{PUBLISHED_LAYERS[end[2]]}.{tensor}"
        raise KeyError(name)


def _unit_layer(name: str) -> str:
    if found := SEPARABLE.fullmatch(name):
        return f"{PUBLISHED_SEPARABLES[found[1]]}.{found[2]}.{PUBLISHED_LAYERS[found[3]]}"
    return PUBLISHED_SINGLES[name]
