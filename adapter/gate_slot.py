"""Where adapted layers find the gate values of the forward pass that they are part of."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facelab.errors import DataError
from facelab.forward_pass import forward_pass, known_in_pass


@dataclass(frozen=True)
class ForwardGate:
    """What the layers of one forward pass share.

    Attributes:
        gate: One value for each image, (B,).
        weights: Those `expert_weights` that were made in this pass, by rows, tokens, experts, rank and type.
    """

    gate: Tensor
    weights: dict[tuple[int, int, int, int, torch.dtype], Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseAlone:
    """Says that adapted layers leave their updates out."""


def gate_of_forward(gate: Tensor | None) -> AbstractContextManager[None]:
    """Context of one forward pass: its layers find ``gate``, one value for each image, (B,)."""
    return forward_pass(None if gate is None else ForwardGate(gate))


def without_updates() -> AbstractContextManager[None]:
    """Context of a forward pass of the base alone: adapted layers leave their updates out."""
    return forward_pass(BaseAlone())


def updates_are_left_out() -> bool:
    """Whether the running forward pass is that of the base."""
    return isinstance(known_in_pass(), BaseAlone)


def weighted(narrow: Tensor, experts: int, rank: int, channel_axis: int = -1) -> Tensor:
    """What lies between D and U of one or two experts, times the weight of each expert for each image.

    It is ``1 - gate`` for the first expert and ``gate`` for the second one.

    Args:
        narrow: (rows, ..., experts * rank) with the channels on ``channel_axis``; the rows are images, or windows or
            tokens of each image in turn.
        experts: 1 or 2.
        rank: Values of each expert.
        channel_axis: Axis of the values, -1 or 1.

    Raises:
        DataError: If the layer runs outside a forward pass with a gate, or its rows are not those of whole images.
    """
    # True for torch.export too. There the batch size is open, and what is shared below would fix it.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return _broadcast(narrow, experts, rank, channel_axis)
    rows = narrow.shape[0]
    if channel_axis == 1:
        weights = expert_weights(rows, experts, rank, narrow.dtype)
        return narrow * weights.view(rows, -1, *[1] * (narrow.ndim - 2))
    tokens = narrow.shape[1:-1].numel()
    return narrow * expert_weights(rows, experts, rank, narrow.dtype, tokens).view_as(narrow)


def expert_weights(rows: int, experts: int, rank: int, dtype: torch.dtype, tokens: int = 1) -> Tensor:
    """The weight of each value between D and U of one or two experts, (rows * tokens, experts * rank).

    Layers of one shape find what the first of them made, which for narrow layers is most of what the gate costs.

    Args:
        rows: Of the layer's input: images, or windows or tokens of each image in turn.
        experts: 1 or 2.
        rank: Values of each expert.
        dtype: Of the result.
        tokens: How often each row's weights come, one after the other: a product of equal shapes is several times
            quicker on a CPU than one that repeats so few values over and over.

    Raises:
        DataError: If the layer runs outside a forward pass with a gate, or its rows are not those of whole images.
    """
    forward, key = _of_forward(), (rows, tokens, experts, rank, dtype)
    if key in forward.weights:
        return forward.weights[key]
    images = forward.gate.shape[0]
    if rows % images:
        raise DataError(f"a quality-weighted layer got {rows} rows for {images} images; they must divide evenly.")
    shape = (images, rows // images * tokens, experts, rank)
    each = _weight_of_each(forward.gate, experts, dtype)
    weights = each[:, None, :, None].expand(shape).reshape(rows * tokens, experts * rank)
    if not weights.requires_grad:  # those of a learned gate are part of a graph, which recomputing builds again
        forward.weights[key] = weights
    return weights


def _broadcast(narrow: Tensor, experts: int, rank: int, channel_axis: int) -> Tensor:
    gate = _of_forward().gate
    by_image = torch.unflatten(narrow, 0, (gate.shape[0], -1))
    shape = [-1] + [1] * narrow.ndim
    shape[channel_axis % narrow.ndim + 1] = experts * rank
    weights = _weight_of_each(gate, experts, narrow.dtype).repeat_interleave(rank, dim=1)
    return (by_image * weights.view(shape)).flatten(0, 1)


def _weight_of_each(gate: Tensor, experts: int, dtype: torch.dtype) -> Tensor:
    """Of each expert for each image, (B, experts)."""
    return torch.stack((1 - gate, gate)[:experts], dim=1).to(dtype)


def _of_forward() -> ForwardGate:
    forward = known_in_pass()
    if not isinstance(forward, ForwardGate):
        raise DataError(
            "a quality-weighted layer ran without a gate: call the adapted backbone itself, with the quality of each "
            "image, not a part of it."
        )
    return forward
