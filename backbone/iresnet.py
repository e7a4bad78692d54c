"""The residual networks for faces: FaceX-Zoo's ``ir`` and ``ir_se``, InsightFace's, AdaFace's and MagFace's."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.backbone.layers.activation import PReLU
from facelab.backbone.layers.fused_norm import NormBlock
from facelab.backbone.layers.output_layer import LastNorm, OutputLayer
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import last_map_size, scaled_channels
from facelab.citation import Citation
from facelab.errors import ConfigError, in_range, one_of
from facelab.inputs import InputSpec

Shortcut = Literal["conv", "pool"]
Initial = Literal["normal", "kaiming", "uniform"]
Norm = Callable[[int], nn.BatchNorm2d]

CHANNELS = (64, 128, 256, 512)
HALVINGS = 4
SQUEEZE_REDUCTION = 16
# Residual units of the four stages, by the names that the projects give to these depths.
UNITS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    152: (3, 8, 36, 3),
    200: (6, 26, 60, 6),
}


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A padded 3x3 convolution without bias, (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class Squeeze(nn.Module):
    """Squeeze-and-excitation gate (Hu et al., CVPR 2018, arXiv:1709.01507, Eqs. 2-4) without biases.

    Args:
        channels: C of the map that is gated; the inner layer has C / 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // SQUEEZE_REDUCTION)
        self.fc1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, each channel times its gate in 0..1."""
        gate: Tensor = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class Subsample(nn.Module):
    """Every second row and column, which is what max pooling of size 1 and stride 2 gives, without its index map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2), rounded up."""
        return x[:, :, ::2, ::2]


class Unit(NormBlock):
    """BN - conv - [BN] - PReLU - conv - BN [- squeeze], plus the shortcut.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Of the second convolution and the shortcut, 1 or 2.
        norm: Makes a BatchNorm for so many channels.
        inner_norm: Whether there is a norm before the PReLU.
        squeeze: Whether a squeeze-and-excitation gate ends the residual branch.
        shortcut: ``conv`` projects wherever the shape changes, ``pool`` only where the number of channels does.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, norm: Norm, inner_norm: bool, squeeze: bool, shortcut: Shortcut
    ) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = conv3x3(inputs, outputs)
        self.norm2 = norm(outputs) if inner_norm else nn.Identity()
        self.act = PReLU(outputs)
        self.conv2 = conv3x3(outputs, outputs, stride)
        self.norm3 = norm(outputs)
        self.squeeze = Squeeze(outputs) if squeeze else nn.Identity()
        self.shortcut = _shortcut(inputs, outputs, stride, norm, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        residual = self.conv2(self.normed(self.conv1(self.normed(x, self.norm1)), self.norm2, self.act))
        if isinstance(self.squeeze, nn.Identity):
            return self.normed(residual, self.norm3, residual=self.shortcut(x))
        gated: Tensor = self.squeeze(self.normed(residual, self.norm3))
        return gated.add_(self.shortcut(x))  # no backward pass needs the sum's first operand


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm, kind: Shortcut) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    if inputs == outputs and kind == "pool":
        return Subsample()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))


@BACKBONES.register("IResNet")
class IResNet(NormBlock, Backbone):
    """Residual network for faces (Deng et al., CVPR 2019, arXiv:1801.07698, Sec. 3.1), in the forms that are published.

    The stem keeps the resolution, each of four stages halves it, and the whole last map goes through an `OutputLayer`.
    The defaults are InsightFace's; the others follow from options (see backbone_conf.yaml):

    ============  ==========  ========  =========  =========  ===========  ========  ========
    project       inner_norm  shortcut  last_norm  drop_rate  norm_eps     momentum  initial
    ============  ==========  ========  =========  =========  ===========  ========  ========
    InsightFace   true        conv      bias       0          1e-5         0.1       normal
    FaceX-Zoo     false       pool      affine     0.4        1e-5         0.1       uniform
    AdaFace       true        pool      plain      0.4        1e-5         0.1       kaiming
    MagFace       true        conv      affine     0.4        2e-5         0.9       kaiming
    ============  ==========  ========  =========  =========  ===========  ========  ========

    AdaFace's network returns a unit embedding and its norm; this one returns their product, so that the norm, which
    AdaFace's and MagFace's margins need, is not lost. `features` gives the four stages' maps.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        depth: 18, 34, 50, 100, 152 or 200; what AdaFace calls 101 is 100.
        width: Factor on every number of channels, rounded to multiples of 8; above 0, at most 8.
        inner_norm: Whether a unit has a norm between its first convolution and its PReLU.
        squeeze: Whether a unit ends in a squeeze-and-excitation gate (``ir_se``).
        shortcut: ``conv`` projects wherever the shape changes; ``pool`` skips pixels where only the size does.
        last_norm: What the embedding's BatchNorm learns: ``affine``, ``bias`` (its scale is 1) or ``plain`` (nothing).
        drop_rate: Dropout before the linear layer, from 0 up to but not including 1.
        drop_channels: Drop whole channels instead of single elements (MagFace).
        norm_eps: Added to the variance in every norm, above 0.
        norm_momentum: Share of the new batch in the running statistics, above 0, at most 1.
        initial: Convolutions start ``normal`` (std 0.1), ``kaiming`` (fan-out) or ``uniform`` (PyTorch's default).
        checkpointing: Recompute each unit in the backward pass: about half the memory, one more forward pass.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="deng2019arcface",
        title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
        authors="Deng, Jiankang and Guo, Jia and Xue, Niannan and Zafeiriou, Stefanos",
        venue="CVPR",
        year=2019,
        arxiv="1801.07698",
    )

    def __init__(
        self,
        input_spec: InputSpec = InputSpec(),  # noqa: B008  (frozen)
        feat_dim: int = 512,
        depth: int = 50,
        width: float = 1.0,
        inner_norm: bool = True,
        squeeze: bool = False,
        shortcut: Shortcut = "conv",
        last_norm: LastNorm = "bias",
        drop_rate: float = 0.0,
        drop_channels: bool = False,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        initial: Initial = "normal",
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        one_of("IResNet shortcut", shortcut, ("conv", "pool"))
        one_of("IResNet initial", initial, tuple(INITIALS))
        in_range("IResNet norm_eps", norm_eps, 0.0, 1.0, low_open=True)
        in_range("IResNet norm_momentum", norm_momentum, 0.0, 1.0, low_open=True)
        norm = partial(nn.BatchNorm2d, eps=norm_eps, momentum=norm_momentum)
        unit = partial(Unit, norm=norm, inner_norm=inner_norm, squeeze=squeeze, shortcut=shortcut)
        map_size = last_map_size("IResNet", input_spec, HALVINGS)
        channels = [scaled_channels(size, width) for size in CHANNELS]
        self.inner_norm = inner_norm
        self.units = units_of(depth)
        self.stem = nn.Sequential(conv3x3(3, channels[0]), norm(channels[0]), PReLU(channels[0]))
        self.stages = nn.ModuleList(_stages(unit, channels, self.units, checkpointing))
        self.output = OutputLayer(
            channels[-1],
            map_size,
            feat_dim,
            drop_rate=drop_rate,
            drop_channels=drop_channels,
            last_norm=last_norm,
            eps=norm_eps,
            momentum=norm_momentum,
        )
        self.apply(INITIALS[initial])

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the four maps of normalised images (B, 3, H, W)."""
        convolution, norm, act = self.stem
        maps, x = [], self.normed(convolution(image), norm, act)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(self.output(x), maps=tuple(maps))


def units_of(depth: int) -> tuple[int, int, int, int]:
    """Residual units of the four stages.

    Raises:
        ConfigError: If no project has such a depth.
    """
    if depth not in UNITS:
        raise ConfigError(f"IResNet depth is {depth!r}. Known: {', '.join(map(str, UNITS))}.")
    return UNITS[depth]


def _stages(
    unit: Callable[[int, int, int], nn.Module], channels: list[int], units: tuple[int, ...], checkpointing: bool
) -> list[nn.Module]:
    """One sequence of units a stage; its first unit has stride 2 and takes the channels of the stage before."""
    stages: list[nn.Module] = []
    for inputs, outputs, count in zip([channels[0], *channels[:-1]], channels, units, strict=True):
        others = (unit(outputs, outputs, 1) for _ in range(count - 1))
        stages.append(Blocks(unit(inputs, outputs, 2), *others, checkpointing=checkpointing))
    return stages


def _normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.1)


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _uniform(module: nn.Module) -> None:
    """PyTorch's default, which every layer has already."""


INITIALS: dict[str, Callable[[nn.Module], None]] = {"normal": _normal, "kaiming": _kaiming, "uniform": _uniform}
