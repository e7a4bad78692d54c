"""What light networks are made of: convolution with BatchNorm and activation, and squeeze-and-excitation."""

from typing import Literal

from torch import Tensor, nn

from facelab.backbone.layers.activation import PReLU

Activation = Literal["none", "relu", "relu6", "silu", "prelu"]
GateActivation = Literal["sigmoid", "hard_sigmoid"]
EPS, MOMENTUM = 1e-5, 0.1


def activation(kind: Activation, channels: int) -> nn.Module:
    """A new activation layer for maps with so many channels."""
    layers = {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}
    return PReLU(channels) if kind == "prelu" else layers[kind]()


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the kernel, odd, or (height, width).
        stride: 1 or 2.
        groups: Groups of channels that do not see each other.
        act: Activation after the norm.
        padding: Zeros around the map; by default half the kernel, so that only the stride changes the size.
        eps: Added to the variance.
        momentum: Share of the new batch in the running statistics.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        act: Activation = "none",
        padding: int | None = None,
        eps: float = EPS,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__()
        around = padding if padding is not None else _half(kernel)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, around, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps, momentum)
        self.act = activation(act, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        output: Tensor = self.act(self.norm(self.conv(x)))
        return output


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation gate (Hu et al., CVPR 2018, arXiv:1709.01507, Eqs. 2-4) with biases.

    Args:
        channels: C of the map that is gated.
        hidden: Channels of the inner layer.
        act: Activation of the inner layer.
        gate: ``sigmoid``, or its piecewise linear form.
        norm: Whether a BatchNorm follows the first layer.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        act: Activation = "relu",
        gate: GateActivation = "sigmoid",
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden) if norm else nn.Identity()
        self.act = activation(act, hidden)
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Sigmoid() if gate == "sigmoid" else nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, each channel times its gate in 0..1."""
        hidden = self.act(self.norm(self.reduce(x.mean((2, 3), keepdim=True))))
        gated: Tensor = x * self.gate(self.expand(hidden))
        return gated


def _half(kernel: int | tuple[int, int]) -> int | tuple[int, int]:
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
