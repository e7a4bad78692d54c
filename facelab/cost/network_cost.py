"""What a network costs: parameters, those that its embeddings depend on, and the work for one image.

Nothing is computed: shapes alone go through a copy of the network on the meta device.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

NEEDS_DATA = (RuntimeError, NotImplementedError)
"""What a network raises that looks at values which are not there."""


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


@dataclass(frozen=True)
class Operations:
    """Operations of a network for one image in evaluation mode, by kind.

    Attributes:
        convolution: Multiply-accumulates of convolutions.
        linear: Multiply-accumulates of products with a matrix that is the same for all images.
        attention: Multiply-accumulates of products of two matrices that come from the image.
        norm: Numbers that go through BatchNorm; no multiply-accumulates, as they can be folded into convolutions.
    """

    convolution: int
    linear: int
    attention: int
    norm: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.convolution + self.linear + self.attention


def network_cost(network: nn.Module, size: tuple[int, int], *, with_quality: bool = False) -> NetworkCost:
    """Count the parameters and multiply-accumulates of a network.

    One that cannot be looked into, such as an exported one, says both in an attribute ``stated_cost``.

    Args:
        network: Takes images (B, 3, H, W); left as it is.
        size: (H, W).
        with_quality: Whether it takes a quality score (B,) of each image too.
    """
    if (stated := getattr(network, "stated_cost", None)) is not None:
        return NetworkCost(*stated)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    work = count_operations(network, size, with_quality=with_quality)
    return NetworkCost(parameters, None if work is None else work.macs)


def count_operations(network: nn.Module, size: tuple[int, int], *, with_quality: bool = False) -> Operations | None:
    """Count the work for one image by kind; None if the network cannot run without data.

    Args:
        network: Takes images (B, 3, H, W); left as it is.
        size: (H, W).
        with_quality: Whether it takes a quality score (B,) of each image too.
    """
    shadow = without_data(network).eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), plain_attention(), _counted_norms(shadow) as norms, counter:
            shadow(*shapes_of_inputs(1, size, with_quality=with_quality))
    except NEEDS_DATA:
        return None
    counts = counter.get_flop_counts().get("Global", {})  # not there if nothing was multiplied
    flops = {str(operation): count for operation, count in counts.items()}
    # Two floating-point operations, a product and a sum, are one multiply-accumulate.
    total = counter.get_total_flops() // 2
    convolution = sum(count for name, count in flops.items() if "convolution" in name) // 2
    # Products in which both sides differ from image to image come as batched ones (bmm).
    attention = sum(count for name, count in flops.items() if "bmm" in name or "attention" in name) // 2
    return Operations(convolution, total - convolution - attention, attention, sum(norms))


def used_parameters(network: nn.Module, size: tuple[int, int]) -> int | None:
    """How many parameters the embedding of evaluation mode depends on; None if the network cannot run without data.

    A parameter counts, whole, if autograd finds a way from it to the embedding. Layers that no forward pass calls and
    those that only training calls are left out.

    Args:
        network: Takes images (B, 3, H, W); left as it is.
        size: (H, W).
    """
    shadow = without_data(network).eval().requires_grad_(True)
    try:
        with torch.enable_grad(), plain_attention():
            embedding = shadow(*shapes_of_inputs(1, size))
    except NEEDS_DATA:
        return None
    reached = {id(leaf) for leaf in _leaves(embedding)}
    return sum(parameter.numel() for parameter in shadow.parameters() if id(parameter) in reached)


def without_data(network: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes only, so that a large network is not held twice."""
    # deepcopy() takes for a copy what the memo has of an object; a parameter in two places stays one.
    memo: dict[int, object] = {
        id(tensor): nn.Parameter(tensor.detach().to("meta"), requires_grad=tensor.requires_grad)
        for tensor in network.parameters()
    }
    memo |= {id(tensor): tensor.to("meta") for tensor in network.buffers()}
    return copy.deepcopy(network, memo)


def shapes_of_inputs(batch: int, size: tuple[int, int], *, with_quality: bool = False) -> tuple[Tensor, ...]:
    """Images (B, 3, H, W), and quality scores (B,) if asked for, without data."""
    image, quality = torch.empty(batch, 3, *size, device="meta"), torch.empty(batch, device="meta")
    return (image, quality) if with_quality else (image,)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as two matrix products, in which counters see its work; fused forms hide it from some of them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _counted_norms(network: nn.Module) -> Iterator[list[int]]:
    """A list that gets the size of what each BatchNorm puts out."""
    sizes: list[int] = []

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes.append(output.numel())

    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    handles = [layer.register_forward_hook(count) for layer in norms]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def _leaves(output: Tensor) -> Iterator[Tensor]:
    """Tensors at the beginning of the computation that gave ``output``."""
    seen: set[Node] = set()
    waiting = [output.grad_fn] if output.grad_fn is not None else []
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(before for before, _ in node.next_functions if before is not None)
