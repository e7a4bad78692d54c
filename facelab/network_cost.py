"""What a network costs: parameters, and multiply-accumulates of one image."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class NetworkCost:
    """Size and work of a network.

    Attributes:
        parameters: How many numbers are learned, frozen ones included.
        macs: Multiply-accumulates of convolutions, matrix products and attention for one image; None if the network
            cannot run without data.
    """

    parameters: int
    macs: int | None


def network_cost(network: nn.Module, size: tuple[int, int], *, with_quality: bool = False) -> NetworkCost:
    """Count without computing anything: shapes alone go through a copy of the network.

    Args:
        network: Takes images (B, 3, H, W); left as it is.
        size: (H, W).
        with_quality: Whether it takes a quality score (B,) of each image too.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    shadow = _without_data(network).eval()
    image, quality = torch.empty(1, 3, *size, device="meta"), torch.empty(1, device="meta")
    inputs = (image, quality) if with_quality else (image,)
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            shadow(*inputs)
    except (RuntimeError, NotImplementedError):  # it looks at values, which are not there
        return NetworkCost(parameters, None)
    return NetworkCost(parameters, counter.get_total_flops() // 2)


def _without_data(network: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes only, so that a large network is not held twice."""
    memo: dict[int, object] = {
        id(tensor): nn.Parameter(tensor.detach().to("meta"), requires_grad=False) for tensor in network.parameters()
    }
    memo |= {id(tensor): tensor.to("meta") for tensor in network.buffers()}
    return copy.deepcopy(network, memo)
