"""HRNet: parallel branches of four resolutions that exchange their maps again and again."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.iresnet import INITIALS
from facelab.backbone.layers.conv_norm import ConvNorm
from facelab.backbone.layers.output_layer import LinearOutput
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import MAX_WIDTH, last_map_size
from facelab.backbone.names.hrnet import hrnet_name
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

HALVINGS = 4
BRANCHES = 4
EXPANSION = 4
STEM_CHANNELS, FIRST_BLOCKS = 64, 4
HEAD_CHANNELS, LAST_CHANNELS = (32, 64, 128, 256), 2048
MAX_BRANCH = 512


class Block(nn.Module):
    """Two 3x3 convolutions, or a 3x3 one between two of 1x1, added to their input (He et al., CVPR 2016, Fig. 5).

    Args:
        inputs: Channels of the input.
        inner: Channels of the 3x3 convolutions.
        bottleneck: Whether 1x1 convolutions surround them; the output then has four times ``inner`` channels.
    """

    def __init__(self, inputs: int, inner: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = inner * EXPANSION if bottleneck else inner
        if bottleneck:
            layers = [ConvNorm(inputs, inner, act="relu"), ConvNorm(inner, inner, 3, act="relu")]
            layers.append(ConvNorm(inner, outputs))
        else:
            layers = [ConvNorm(inputs, inner, 3, act="relu"), ConvNorm(inner, inner, 3)]
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if inputs == outputs else ConvNorm(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.relu(self.layers(x) + self.shortcut(x))


class Exchange(nn.Module):
    """What one branch adds to a finer, the same, or a coarser one (Wang et al., Sec. 3.2, Fig. 3).

    Args:
        channels: Channels of each branch.
        source: Number of the branch that gives.
        target: Number of the branch that takes; a higher one is coarser.
    """

    def __init__(self, channels: Sequence[int], source: int, target: int) -> None:
        super().__init__()
        given, taken = channels[source], channels[target]
        halvings = target - source
        self.enlarges = halvings < 0
        layers: list[nn.Module] = [ConvNorm(given, taken)] if self.enlarges else []
        for step in range(halvings):
            last = step == halvings - 1
            # The last one is linear, because the ReLU follows the sum of all branches.
            layers.append(ConvNorm(given, taken if last else given, 3, stride=2, act="none" if last else "relu"))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The source's map in the target's channels and ``size``."""
        output: Tensor = self.layers(x)
        # To the nearest pixel, as in the original. A whole factor would not fit branches of odd sizes.
        return F.interpolate(output, size=size) if self.enlarges else output


class Module(nn.Module):
    """Residual blocks on each branch, then each branch becomes the sum of what all give.

    Args:
        channels: Channels of each branch.
        blocks: Residual blocks of a branch.
        checkpointing: Of `Blocks`.
    """

    def __init__(self, channels: Sequence[int], blocks: int, *, checkpointing: bool) -> None:
        super().__init__()
        count = range(len(channels))
        self.branches = nn.ModuleList(
            Blocks(*(Block(size, size, bottleneck=False) for _ in range(blocks)), checkpointing=checkpointing)
            for size in channels
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList(Exchange(channels, source, target) for source in count) for target in count
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map a branch, (B, C_i, H_i, W_i) -> the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._fused(exchanges, maps, x) for exchanges, x in zip(self.fuse, maps, strict=True)]

    def _fused(self, exchanges: nn.Module, maps: list[Tensor], target: Tensor) -> Tensor:
        size = (target.shape[2], target.shape[3])
        given = [exchange(x, size) for exchange, x in zip(exchanges.children(), maps, strict=True)]
        total: Tensor = given[0]
        for part in given[1:]:
            total = total + part
        return F.relu(total)


class Head(nn.Module):
    """Gathers the branches from fine to coarse: each is widened, and the sum so far is halved and added.

    Args:
        channels: Channels of each branch.
        inner: Inner channels of the bottleneck that widens each branch.
        last: Channels of the output.
    """

    def __init__(self, channels: Sequence[int], inner: Sequence[int], last: int) -> None:
        super().__init__()
        wide = [size * EXPANSION for size in inner]
        self.widen = nn.ModuleList(
            Block(size, hidden, bottleneck=True) for size, hidden in zip(channels, inner, strict=True)
        )
        self.halve = nn.ModuleList(_biased(fine, coarse, 3, stride=2) for fine, coarse in pairwise(wide))
        self.last = _biased(wide[-1], last, 1, stride=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """One map a branch -> (B, last, H, W) of the coarsest one's size."""
        first, *others = (widen(x) for widen, x in zip(self.widen, maps, strict=True))
        total: Tensor = first
        for halve, wide in zip(self.halve, others, strict=True):
            total = wide + halve(total)
        output: Tensor = self.last(total)
        return output


def _biased(inputs: int, outputs: int, kernel: int, *, stride: int) -> nn.Module:
    """Convolution with a bias, BatchNorm, ReLU."""
    # The norm takes the bias out again; published weights have one.
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


@BACKBONES.register("HRNet")
class HRNet(Backbone):
    """High-resolution network (Wang et al., TPAMI 2020, arXiv:1908.07919, Sec. 3 and Fig. 4c), as built by FaceX-Zoo.

    The second convolution of the stem keeps the resolution, and the whole last map makes the embedding. FaceX-Zoo
    enlarges maps by whole factors and fixes 512 dimensions; here maps take the size of the branch that they are added
    to, so that any image of at least 16x16 works, with any ``feat_dim``. `features` gives the four branches' maps.

    Args:
        input_spec: Size, colour order and value range of the input.
        feat_dim: D, length of the embedding.
        branch: Channels of the finest branch, 1 to 512: 18 is HRNet-W18. Each coarser one has twice as many.
        modules: Modules of the stages with two, three and four branches, each at least 1.
        blocks: Residual blocks of a branch in each module.
        width: Factor on every number of channels, rounded; above 0, at most 8.
        drop_rate: Dropout before the linear layer, from 0 up to but not including 1.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wang2020hrnet",
        title="Deep High-Resolution Representation Learning for Visual Recognition",
        authors="Wang, Jingdong and Sun, Ke and Cheng, Tianheng and Jiang, Borui and Deng, Chaorui and Zhao, Yang and "
        "Liu, Dong and Mu, Yadong and Tan, Mingkui and Wang, Xinggang and Liu, Wenyu and Xiao, Bin",
        venue="TPAMI",
        year=2020,
        arxiv="1908.07919",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        branch: int = 18,
        modules: tuple[int, int, int] = (1, 4, 3),
        blocks: int = 4,
        width: float = 1.0,
        drop_rate: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        in_range("HRNet branch", branch, 1, MAX_BRANCH)
        in_range("HRNet blocks", blocks, 1, 1000)
        in_range("HRNet width", width, 0.0, MAX_WIDTH, low_open=True)
        for count in modules:
            in_range("HRNet modules", count, 1, 1000)
        map_size = last_map_size("HRNet", input_spec, HALVINGS)
        stem = _scaled(STEM_CHANNELS, width)
        channels = [_scaled(branch, width) * 2**number for number in range(BRANCHES)]
        self.stem = nn.Sequential(ConvNorm(3, stem, 3, stride=2, act="relu"), ConvNorm(stem, stem, 3, act="relu"))
        widths = [stem, *[stem * EXPANSION] * (FIRST_BLOCKS - 1)]
        bottlenecks = (Block(size, stem, bottleneck=True) for size in widths)
        self.first = Blocks(*bottlenecks, checkpointing=checkpointing)
        self.finest = ConvNorm(stem * EXPANSION, channels[0], 3, act="relu")
        # Each stage makes its coarsest branch from the coarsest map so far; at first that is the wide one of the stem.
        before = [stem * EXPANSION, *channels[1:-1]]
        self.coarser = nn.ModuleList(
            ConvNorm(given, taken, 3, stride=2, act="relu") for given, taken in zip(before, channels[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(Module(channels[: number + 2], blocks, checkpointing=checkpointing) for _ in range(count))
            for number, count in enumerate(modules)
        )
        last = _scaled(LAST_CHANNELS, width)
        self.head = Head(channels, [_scaled(size, width) for size in HEAD_CHANNELS], last)
        self.output = LinearOutput(last, map_size, feat_dim, drop_rate=drop_rate)
        self.apply(INITIALS["kaiming"])

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the maps of the four branches of normalised images (B, 3, H, W)."""
        x = self.first(self.stem(image))
        maps, coarsest = [self.finest(x)], x
        for coarser, stage in zip(self.coarser, self.stages, strict=True):
            maps.append(coarser(coarsest))
            for module in stage.children():
                maps = module(maps)
            coarsest = maps[-1]
        return Features(self.output(self.head(maps)), maps=tuple(maps))

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's HRNet."""
        return hrnet_name(name)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))
