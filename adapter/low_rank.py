"""Linear and convolution layers with low-rank updates beside their frozen weights."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.adapter.gate_slot import updates_are_left_out, weighted
from facelab.errors import ConfigError, in_range, one_of

Initial = Literal["zero", "trunc_normal"]
DropoutOn = Literal["input", "output"]
Experts = Literal["single", "dual", "low"]
COUNT: dict[Experts, int] = {"single": 1, "dual": 2, "low": 1}
TRUNC_NORMAL_STD = 0.02


@dataclass(frozen=True)
class LowRankOptions:
    """How low-rank updates are made.

    Attributes:
        rank: r, columns of the update of each expert.
        scale: s, multiplies the update as it is; it is not divided by the rank.
        dropout: Probability of dropping a value during training.
        dropout_on: ``input`` drops inputs of the update, as LoRA does; ``output`` drops values of each expert's update
            (PETALface's code).
        initial: ``zero`` starts without any change; ``trunc_normal`` draws both factors with a deviation of 0.02, as
            PETALface's transformers end up with.

    Raises:
        ConfigError: If a value is out of range.
    """

    rank: int = 8
    scale: float = 1.0
    dropout: float = 0.1
    dropout_on: DropoutOn = "input"
    initial: Initial = "zero"

    def __post_init__(self) -> None:
        in_range("adapter rank", self.rank, 1, math.inf)
        in_range("adapter scale", self.scale, 0.0, torch.finfo(torch.float32).max, low_open=True)
        in_range("adapter dropout", self.dropout, 0.0, 1.0, high_open=True)
        one_of("adapter dropout_on", self.dropout_on, get_args(DropoutOn))
        one_of("adapter initial", self.initial, get_args(Initial))


class LowRankLayer(nn.Module):
    """A layer ``y = W x + b + s sum_e g_e U_e D_e x`` with frozen W and b, and one or two experts e.

    The weights g are 1 for a ``single`` expert, (1 - a, a) for ``dual`` ones (the first works for low quality), and
    1 - a for a ``low`` expert that is silent at high quality; a is the gate of the image. The factors of all experts
    lie in one matrix each, so that two experts of rank r cost what one of rank 2r does.

    ``weight`` and ``bias`` are the very parameters of the original layer, under their old names.

    Attributes:
        low_rank_down: D, one expert's rows after the other's.
        low_rank_up: U, one expert's columns after the other's.
    """

    low_rank_down: nn.Parameter
    low_rank_up: nn.Parameter

    def __init__(self, layer: nn.Linear | nn.Conv2d, experts: Experts, options: LowRankOptions) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias
        self.experts: Experts = experts
        self.rank = options.rank
        self.scale = options.scale
        self.dropout = options.dropout
        self.dropout_on = options.dropout_on

    def _start(self, down: tuple[int, ...], up: tuple[int, ...], initial: Initial) -> None:
        """Make both factors on the device and in the type of the frozen weight."""
        # One zero factor makes the update zero, so that training starts from what the base gives. Both zero would never
        # move: the gradient of each is a product with the other one.
        self.low_rank_down = nn.Parameter(self.weight.new_empty(down))
        self.low_rank_up = nn.Parameter(self.weight.new_zeros(up))
        if initial == "trunc_normal":
            nn.init.trunc_normal_(self.low_rank_down, std=TRUNC_NORMAL_STD)
            nn.init.trunc_normal_(self.low_rank_up, std=TRUNC_NORMAL_STD)
        else:
            # As nn.Linear starts, and D in the program of LoRA's authors.
            nn.init.kaiming_uniform_(self.low_rank_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for ``x``, whose first axis holds images, or windows or tokens of each image in turn."""
        result = self._frozen(x)
        if updates_are_left_out():
            return result
        if self.dropout_on == "output" and self.training and self.dropout:
            return result + self._dropped_outputs(self._narrow(x))
        # One mask for both experts, whose factors lie in one matrix.
        narrow = self._narrow(F.dropout(x, self.dropout, self.training and self.dropout_on == "input"))
        # Scaled and added in one pass over the output, not in two.
        return torch.add(result, self._up(narrow, self.low_rank_up), alpha=self.scale)

    def _narrow(self, x: Tensor) -> Tensor:
        """D x of all experts, weighted for each image."""
        narrow = self._down(x)
        if self.experts == "single":
            return narrow
        return weighted(narrow, COUNT[self.experts], self.rank, self._channel_axis)

    def _dropped_outputs(self, narrow: Tensor) -> Tensor:
        """The update with dropout on the output of each expert by itself."""
        parts = torch.split(narrow, self.rank, self._channel_axis)
        factors = torch.split(self.low_rank_up, self.rank, dim=1)
        outputs = [
            F.dropout(self.scale * self._up(part, factor), self.dropout)
            for part, factor in zip(parts, factors, strict=True)
        ]
        return torch.stack(outputs).sum(dim=0)

    def factors(self, expert: int) -> tuple[Tensor, Tensor]:
        """D and U of one expert, from 0."""
        rows = slice(expert * self.rank, (expert + 1) * self.rank)
        return self.low_rank_down[rows], self.low_rank_up[:, rows]

    def merged_weight(self, gate: float) -> Tensor:
        """The dense weight that gives the same output where every image has this gate value.

        Raises:
            ConfigError: If the layer cannot be merged.
        """
        mix = {"single": (1.0,), "dual": (1.0 - gate, gate), "low": (1.0 - gate,)}[self.experts]
        update = torch.zeros_like(self.weight)
        for expert, weight in enumerate(mix):
            down, up = self.factors(expert)
            update = update + weight * self._product(down, up)
        return self.weight + self.scale * update

    def _filled(self, layer: nn.Module, weight: Tensor) -> nn.Module:
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = self.bias
        return layer.train(self.training)

    _channel_axis: int

    @abstractmethod
    def _frozen(self, x: Tensor) -> Tensor:
        """W x + b."""

    @abstractmethod
    def _down(self, x: Tensor) -> Tensor:
        """D x of all experts."""

    @abstractmethod
    def _up(self, narrow: Tensor, factor: Tensor) -> Tensor:
        """U of some narrow activation."""

    @abstractmethod
    def _product(self, down: Tensor, up: Tensor) -> Tensor:
        """U D in the shape of the dense weight."""

    @abstractmethod
    def plain(self, weight: Tensor) -> nn.Module:
        """An ordinary layer of the same shape with this weight and the same bias."""


class LowRankLinear(LowRankLayer):
    """A linear layer with low-rank updates (Hu et al., ICLR 2022, arXiv:2106.09685, Eq. 3; two of them: `DualLoRA`).

    Args:
        layer: The layer to adapt; its parameters are used, not copied.
        experts: ``single``, ``dual`` or ``low``.
        options: Rank, scale, dropout and start.
        name: Its name in the network, for messages.

    Raises:
        ConfigError: If the rank is larger than the layer.
    """

    _channel_axis = -1

    def __init__(self, layer: nn.Linear, experts: Experts, options: LowRankOptions, name: str = "") -> None:
        super().__init__(layer, experts, options)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        check_rank(options.rank, self.in_features, self.out_features, name)
        columns = COUNT[experts] * options.rank
        self._start((columns, self.in_features), (self.out_features, columns), options.initial)

    def _frozen(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def _down(self, x: Tensor) -> Tensor:
        return F.linear(x, self.low_rank_down)

    def _up(self, narrow: Tensor, factor: Tensor) -> Tensor:
        return F.linear(narrow, factor)

    def _product(self, down: Tensor, up: Tensor) -> Tensor:
        return up @ down

    def plain(self, weight: Tensor) -> nn.Module:
        """A linear layer with this weight."""
        # On meta, so that no weight is drawn that is replaced at once.
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        return self._filled(layer, weight)

    def extra_repr(self) -> str:
        """Sizes and rank."""
        return f"{self.in_features}, {self.out_features}, experts={self.experts}, rank={self.rank}, scale={self.scale}"


class LowRankConv2d(LowRankLayer):
    """A convolution with low-rank updates: D is a convolution of the same geometry to r channels, U is 1x1.

    Args:
        layer: The layer to adapt; its parameters are used, not copied.
        experts: ``single``, ``dual`` or ``low``.
        options: Rank, scale, dropout and start.
        name: Its name in the network, for messages.

    Raises:
        ConfigError: If the rank is larger than the layer, or not a multiple of its groups.
    """

    _channel_axis = 1

    def __init__(self, layer: nn.Conv2d, experts: Experts, options: LowRankOptions, name: str = "") -> None:
        super().__init__(layer, experts, options)
        self.geometry = {
            name: getattr(layer, name)
            for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        }
        if layer.padding_mode != "zeros":
            raise ConfigError(
                f"the convolution '{name}' with padding '{layer.padding_mode}' cannot be adapted; leave it out."
            )
        if options.rank % layer.groups:
            raise ConfigError(
                f"adapter rank {options.rank} is not a multiple of the {layer.groups} groups of the convolution "
                f"'{name}'; choose another rank, or patterns that leave it out."
            )
        check_rank(options.rank, layer.weight[0].numel() * layer.groups, layer.out_channels, name)
        columns = COUNT[experts] * options.rank
        self._start((columns, *layer.weight.shape[1:]), (layer.out_channels, columns), options.initial)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        place = self.geometry
        return F.conv2d(x, weight, bias, place["stride"], place["padding"], place["dilation"], place["groups"])

    def _frozen(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, self.bias)

    def _down(self, x: Tensor) -> Tensor:
        if self.geometry["groups"] == 1:
            return self._convolve(x, self.low_rank_down, None)
        # Groups cut the output channels in order, so the rows of two experts cannot share one grouped convolution.
        return torch.cat([self._convolve(x, part, None) for part in torch.split(self.low_rank_down, self.rank)], dim=1)

    def _up(self, narrow: Tensor, factor: Tensor) -> Tensor:
        return F.conv2d(narrow, factor[:, :, None, None])

    def _product(self, down: Tensor, up: Tensor) -> Tensor:
        if self.geometry["groups"] > 1:
            raise ConfigError(
                f"the update of a convolution in {self.geometry['groups']} groups mixes them and cannot be merged into "
                "its weight; leave grouped convolutions out of the adapter's targets."
            )
        return torch.einsum("or,rikl->oikl", up, down)

    def plain(self, weight: Tensor) -> nn.Module:
        """A convolution with this weight."""
        layer = nn.Conv2d(**self.geometry, bias=self.bias is not None, device="meta")
        return self._filled(layer, weight)

    def extra_repr(self) -> str:
        """Geometry and rank."""
        place = self.geometry
        return (
            f"{place['in_channels']}, {place['out_channels']}, kernel_size={place['kernel_size']}, "
            f"stride={place['stride']}, experts={self.experts}, rank={self.rank}, scale={self.scale}"
        )


def check_rank(rank: int, inputs: int, outputs: int, name: str) -> None:
    """Refuse a rank that no update of a layer can have.

    Raises:
        ConfigError: If ``rank`` is above the lesser of inputs and outputs.
    """
    largest = min(inputs, outputs)
    if rank > largest:
        raise ConfigError(
            f"adapter rank {rank} is larger than the layer '{name}' ({inputs} to {outputs}); at most {largest} there."
        )
