"""Residual attention networks: trunks whose maps are weighed by masks from an hourglass."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.layers.conv_norm import ConvNorm
from facelab.backbone.layers.output_layer import FACEXZOO_LINEAR_OUTPUT, LinearOutput
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import last_map_size, scaled_channels
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

HALVINGS = 4
STEM_CHANNELS = 64
INNER_CHANNELS = (64, 128, 256, 512)
EXPANSION = 4
# At 112x112 from 56, 28 and 14 pixels down to 7 each.
LEVELS = (3, 2, 1)  # how often the masks of a stage halve its map
LAST_BLOCKS = 3
PUBLISHED_BLOCK = {
    "bn1": "norm1",
    "conv1": "conv1",
    "bn2": "norm2",
    "conv2": "conv2",
    "bn3": "norm3",
    "conv3": "conv3",
    "conv4": "shortcut",
}
PUBLISHED_STEM = {"0": "stem.conv", "1": "stem.norm"}
PUBLISHED_BRANCHES = {"first_residual_blocks": "first", "last_blocks": "last", "trunk_branches": "trunk"}


class Residual(nn.Module):
    """Three convolutions, each behind BatchNorm and ReLU, added to their input (He et al., ECCV 2016).

    Args:
        inputs: Channels of the input.
        inner: Channels between the 1x1 convolutions; the output has four times as many.
        stride: 1 or 2.
        published_extras: Keep a projection where the input is added as it is: published weights have it, nothing reads
            it, and it is not trained.
    """

    def __init__(self, inputs: int, inner: int, stride: int = 1, *, published_extras: bool) -> None:
        super().__init__()
        outputs = inner * EXPANSION
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.projects = inputs != outputs or stride != 1
        kept = self.projects or published_extras
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if kept else None
        # Unused, it is not trained: DistributedDataParallel takes a parameter without a gradient for an error.
        if self.shortcut is not None:
            self.shortcut.requires_grad_(self.projects)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 inner, H / stride, W / stride), rounded up."""
        activated = F.relu(self.norm1(x))
        residual = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        residual = self.conv3(F.relu(self.norm3(residual)))
        # Pre-activation: a projection reads the activated map, but what passes as it is stays raw.
        projected = self.shortcut(activated) if self.shortcut is not None and self.projects else x
        output: Tensor = residual + projected
        return output


class Hourglass(nn.Module):
    """Halves a map, works on it, halves it again, and brings it back to its size (Wang et al., Sec. 3.2, Fig. 2).

    Args:
        inner: Inner channels of the residual blocks.
        levels: How often the map is halved.
        published_extras: Of `Residual`.
    """

    def __init__(self, inner: int, levels: int, *, published_extras: bool) -> None:
        super().__init__()
        self.down = _blocks(inner, 1 if levels > 1 else 2, published_extras)
        self.inner = Hourglass(inner, levels - 1, published_extras=published_extras) if levels > 1 else None
        self.skip = _blocks(inner, 1 if levels > 1 else 0, published_extras)
        self.up = _blocks(inner, 1 if levels > 1 else 0, published_extras)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        below = self.down(F.max_pool2d(x, 3, 2, padding=1))
        if self.inner is not None:
            below = self.up(self.inner(below) + below + self.skip(below))
        # Corners aligned, as FaceX-Zoo's enlarging layers have them; without, its weights give other masks.
        return F.interpolate(below, size=x.shape[2:], mode="bilinear", align_corners=True)


class AttentionModule(nn.Module):
    """A trunk T whose map is multiplied by 1 + M, with a mask M in 0..1 (Wang et al., Eq. 3).

    Args:
        inner: Inner channels of the residual blocks; maps have four times as many.
        levels: How often the mask's hourglass halves the map.
        published_extras: Of `Residual`.
    """

    def __init__(self, inner: int, levels: int, *, published_extras: bool) -> None:
        super().__init__()
        channels = inner * EXPANSION
        self.first = _blocks(inner, 1, published_extras)
        self.trunk = _blocks(inner, 2, published_extras)
        self.mask = Hourglass(inner, levels, published_extras=published_extras)
        self.gate = nn.Sequential(*_norm_relu_conv(channels), *_norm_relu_conv(channels), nn.Sigmoid())
        self.last = _blocks(inner, 1, published_extras)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4 inner, H, W) -> the same shape."""
        x = self.first(x)
        trunk = self.trunk(x)
        # As in FaceX-Zoo's program, the trunk joins the hourglass before the gate.
        mask = self.gate(self.mask(x) + trunk)
        # 1 + M, because products of many masks below 1 would leave nothing of the trunk.
        output: Tensor = self.last((1 + mask) * trunk)
        return output


def _blocks(inner: int, count: int, published_extras: bool) -> nn.Sequential:
    return nn.Sequential(*(Residual(inner * EXPANSION, inner, published_extras=published_extras) for _ in range(count)))


def _norm_relu_conv(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1, bias=False)]


@BACKBONES.register("AttentionNet")
class AttentionNet(Backbone):
    """Residual attention network (Wang et al., CVPR 2017, arXiv:1704.06904, Table 2), as built by FaceX-Zoo.

    Departs from Table 2 as FaceX-Zoo does: no max pooling behind the stem, the whole last map makes the embedding, and
    two residual blocks instead of one lead into a mask. FaceX-Zoo's masks are enlarged to fixed sizes, so that it takes
    112x112 only; these follow the map. Its blocks also carry a projection that most never use: 17.8 M of the 99.0 M
    parameters of AttentionNet-56, 32.8 M of 134.6 M of AttentionNet-92; see ``published_extras``.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        modules: Attention modules of the first three stages: 1, 1, 1 is AttentionNet-56 and 1, 2, 3 is 92.
        width: Factor on every number of channels, rounded to multiples of 8; above 0, at most 8.
        drop_rate: Dropout before the linear layer, from 0 up to but not including 1.
        published_extras: Keep the unused projections, untrained, so that all of a published state dict has its place.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wang2017residual",
        title="Residual Attention Network for Image Classification",
        authors="Wang, Fei and Jiang, Mengqing and Qian, Chen and Yang, Shuo and Li, Cheng and Zhang, Honggang and "
        "Wang, Xiaogang and Tang, Xiaoou",
        venue="CVPR",
        year=2017,
        arxiv="1704.06904",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        modules: tuple[int, int, int] = (1, 1, 1),
        width: float = 1.0,
        drop_rate: float = 0.0,
        published_extras: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        for count in modules:
            in_range("AttentionNet modules", count, 0, 1000)
        map_size = last_map_size("AttentionNet", input_spec, HALVINGS)
        self.published_extras = published_extras
        self.stem = ConvNorm(3, scaled_channels(STEM_CHANNELS, width), 7, stride=2, act="relu")
        inner = [scaled_channels(size, width) for size in INNER_CHANNELS]
        before = [scaled_channels(STEM_CHANNELS, width), *(size * EXPANSION for size in inner)]
        self.stages = nn.ModuleList()
        for number, size in enumerate(inner):
            stride = 1 if number == 0 else 2  # the stem has halved the image already
            blocks: list[nn.Module] = [Residual(before[number], size, stride, published_extras=published_extras)]
            if number < len(LEVELS):
                levels, count = LEVELS[number], modules[number]
                blocks += [AttentionModule(size, levels, published_extras=published_extras) for _ in range(count)]
            else:
                blocks += _blocks(size, LAST_BLOCKS - 1, published_extras)
            self.stages.append(Blocks(*blocks, checkpointing=checkpointing))
        self.output = LinearOutput(before[-1], map_size, feat_dim, drop_rate=drop_rate)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the maps of the four stages of normalised images (B, 3, H, W)."""
        maps, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(self.output(x), maps=tuple(maps))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's AttentionNet; None for a projection that is not kept."""
        match name.split("."):
            case ["conv1", index, tensor]:
                return f"{PUBLISHED_STEM[index]}.{tensor}"
            case ["output_layer", index, tensor]:
                return f"output.{FACEXZOO_LINEAR_OUTPUT[index]}.{tensor}"
            case ["attention_body", index, *rest]:
                stage, place = self._place(int(index))
                ours = f"stages.{stage}.{place}.{_block_name(rest, self._levels(stage))}"
                return None if self._left_out(ours) else ours
        raise KeyError(name)

    def _place(self, index: int) -> tuple[int, int]:
        """Stage, and place in it, of a block that FaceX-Zoo numbers through."""
        for number, stage in enumerate(self.stages):
            length = sum(1 for _ in stage.children())
            if index < length:
                return number, index
            index -= length
        raise KeyError(f"attention_body with {index + 1} blocks more")

    def _levels(self, stage: int) -> int:
        return LEVELS[stage] if stage < len(LEVELS) else 0

    def _left_out(self, ours: str) -> bool:
        """Whether the tensor is of a projection that this network does not have."""
        block, found, _ = ours.rpartition(".shortcut.")
        return bool(found) and self.get_submodule(block).shortcut is None


def _block_name(parts: list[str], levels: int) -> str:
    """Name inside a residual block, or inside an attention module whose mask has so many levels."""
    match parts:
        case [layer, tensor]:
            return f"{PUBLISHED_BLOCK[layer]}.{tensor}"
        case [branch, layer, tensor] if branch == f"softmax{2 * levels}_blocks":
            return f"gate.{layer}.{tensor}"
        case [branch, layer, tensor]:
            return f"{_branch_name(branch, levels)}.0.{PUBLISHED_BLOCK[layer]}.{tensor}"
        case [branch, place, layer, tensor]:
            return f"{_branch_name(branch, levels)}.{place}.{PUBLISHED_BLOCK[layer]}.{tensor}"
    raise KeyError(".".join(parts))


def _branch_name(branch: str, levels: int) -> str:
    """FaceX-Zoo numbers the blocks of a mask downwards, then upwards: softmax1, 2, 3, 4, 5 for three levels."""
    if branch in PUBLISHED_BRANCHES:
        return PUBLISHED_BRANCHES[branch]
    kind, part = ("skip", "skip") if branch.startswith("skip") else ("softmax", "down")
    number = branch.removeprefix(kind).partition("_")[0]
    if not number.isdecimal():
        raise KeyError(branch)
    level = int(number)
    if level > levels:
        level, part = 2 * levels - level, "up"
    return ".".join(["mask", *["inner"] * (level - 1), part])
