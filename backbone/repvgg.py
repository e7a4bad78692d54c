"""RepVGG: three parallel branches in training that become one 3x3 convolution for deployment."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.backbone.layers.conv_norm import ConvNorm
from facelab.backbone.layers.output_layer import OutputLayer
from facelab.backbone.layers.recompute import Blocks
from facelab.backbone.layers.sizes import last_map_size, scaled_channels
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.inputs import InputSpec

Four = tuple[int, int, int, int]
CHANNELS: Four = (64, 128, 256, 512)
HALVINGS = 4
PUBLISHED_BRANCHES = {"rbr_dense": "dense", "rbr_1x1": "pointwise", "rbr_identity": "identity", "rbr_reparam": "conv"}
PUBLISHED_LAYERS = {"conv": "conv", "bn": "norm"}
PUBLISHED_OUTPUT = {"0": "norm", "2": "fc", "3": "last_norm"}


class RepBlock(nn.Module):
    """ReLU of the sum of a 3x3 convolution, a 1x1 convolution and, if the shape stays, the input; each normalised.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.dense = ConvNorm(inputs, outputs, 3, stride=stride)
        self.pointwise = ConvNorm(inputs, outputs, stride=stride)
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        total: Tensor = self.dense(x) + self.pointwise(x)
        if self.identity is not None:
            total = total + self.identity(x)
        return F.relu(total)

    def fused(self) -> tuple[Tensor, Tensor]:
        """Weight (outputs, inputs, 3, 3) and bias (outputs,) of the one convolution that equals the branches."""
        dense, dense_bias = _folded(self.dense.conv.weight, self.dense.norm)
        point, point_bias = _folded(self.pointwise.conv.weight, self.pointwise.norm)
        # A 1x1 kernel is the centre of a 3x3 one, and the identity is a 1x1 kernel of ones on the diagonal.
        weight, bias = dense + F.pad(point, (1, 1, 1, 1)), dense_bias + point_bias
        if self.identity is not None:
            kept = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)[:, :, None, None]
            same, same_bias = _folded(kept, self.identity)
            weight, bias = weight + F.pad(same, (1, 1, 1, 1)), bias + same_bias
        return weight, bias


class DeployedBlock(nn.Module):
    """What a `RepBlock` becomes: ReLU of a 3x3 convolution with bias."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return F.relu(self.conv(x))


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The convolution with the norm behind it as one convolution with bias (Ding et al., Eq. 3), in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a norm without running statistics cannot be folded into a convolution")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return weight.double() * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


@BACKBONES.register("RepVGG")
class RepVGG(Backbone):
    """RepVGG (Ding et al., CVPR 2021, arXiv:2101.03697), as built by FaceX-Zoo: the stem keeps the resolution.

    The output is BatchNorm - dropout - flatten - linear - BatchNorm. `deployed` turns a trained network into the
    form with one convolution a block, whose embeddings are equal.

    Args:
        input_spec: Size, colour order and value range of the input, at least 16x16.
        feat_dim: D, length of the embedding.
        depths: Blocks of the four stages behind the stem.
        widths: Factors on 64, 128, 256 and 512 channels of the stages, rounded to multiples of 8.
        drop_rate: Dropout before the last linear layer; from 0 up to but not including 1.
        deploy: Build the form with one convolution a block.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If an option is out of range or the input is too small.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="ding2021repvgg",
        title="RepVGG: Making VGG-style ConvNets Great Again",
        authors="Ding, Xiaohan and Zhang, Xiangyu and Ma, Ningning and Han, Jungong and Ding, Guiguang and Sun, Jian",
        venue="CVPR",
        year=2021,
        arxiv="2101.03697",
    )

    def __init__(
        self,
        input_spec: InputSpec = FACEXZOO_INPUT,
        feat_dim: int = 512,
        depths: Four = (4, 6, 16, 1),
        widths: tuple[float, float, float, float] = (2.0, 2.0, 2.0, 4.0),
        drop_rate: float = 0.0,
        *,
        deploy: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        for depth in depths:
            in_range("RepVGG depths", depth, 1, 1000)
        self.options: dict[str, Any] = {"depths": depths, "widths": widths, "drop_rate": drop_rate}
        self.deploy = deploy
        map_size = last_map_size("RepVGG", input_spec, HALVINGS)
        block = DeployedBlock if deploy else RepBlock
        # In the original too, the stem never has more than 64 channels.
        channels = min(CHANNELS[0], scaled_channels(CHANNELS[0], widths[0]))
        stages: list[nn.Module] = [Blocks(block(3, channels, 1), checkpointing=checkpointing)]
        for base, width, depth in zip(CHANNELS, widths, depths, strict=True):
            outputs = scaled_channels(base, width)
            others = [block(outputs, outputs, 1) for _ in range(depth - 1)]
            stages.append(Blocks(block(channels, outputs, 2), *others, checkpointing=checkpointing))
            channels = outputs
        self.stages = nn.ModuleList(stages)
        self.output = OutputLayer(channels, map_size, feat_dim, drop_rate=drop_rate)

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D) and the maps of the stem and of the four stages of normalised images (B, 3, H, W)."""
        maps, x = [], image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(self.output(x), maps=tuple(maps))

    def inference_form(self) -> "RepVGG":
        """`deployed`."""
        return deployed(self)

    def published_name(self, name: str) -> str | None:
        """Our name of a tensor of FaceX-Zoo's RepVGG."""
        match name.split("."):
            case ["output_layer", index, tensor]:
                return f"output.{PUBLISHED_OUTPUT[index]}.{tensor}"
            case ["stage0", branch, *rest]:
                return f"stages.0.0.{_branch_name(branch, rest)}"
            case [stage, index, branch, *rest]:
                return f"stages.{int(stage.removeprefix('stage'))}.{index}.{_branch_name(branch, rest)}"
        raise KeyError(name)


def _branch_name(branch: str, rest: list[str]) -> str:
    *layer, tensor = rest
    return ".".join([PUBLISHED_BRANCHES[branch], *(PUBLISHED_LAYERS[part] for part in layer), tensor])


@torch.no_grad()
def deployed(network: RepVGG) -> RepVGG:
    """The network with one convolution a block: the same embeddings in evaluation mode, fewer parameters, faster.

    Args:
        network: Trained network; it is left as it is. A deployed one is copied.

    Returns:
        A new network in evaluation mode, of the same dtype and on the same device.
    """
    simple = RepVGG(network.input_spec, network.feat_dim, **network.options, deploy=True)
    reference = network.output.fc.weight
    state = dict(network.state_dict())
    for name, block in network.named_modules():
        if isinstance(block, RepBlock):
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
            state[f"{name}.conv.weight"], state[f"{name}.conv.bias"] = block.fused()
    # Folded in float64, the weights are rounded once, here.
    simple.to(reference).load_state_dict(state)
    return simple.eval()
