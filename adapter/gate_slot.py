"""Where adapted layers find the gate values of the forward pass that they are part of."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facelab.errors import DataError


@dataclass(frozen=True)
class ForwardGate:
    """What the layers of one forward pass share.

    Attributes:
        gate: One value for each image, (B,).
        weights: Those `expert_weights` that were made in this pass, by rows, tokens, experts, rank and type.
    """

    gate: Tensor
    weights: dict[tuple[int, int, int, int, torch.dtype], Tensor] = field(default_factory=dict)


# A context variable, not an attribute of the network: forward passes in several threads do not see each other's values,
# two passes may precede one backward pass, and recomputing restores it (facelab.backbone.layers.recompute).
_GATE: ContextVar[ForwardGate | None] = ContextVar("gate of the running forward pass", default=None)


@contextmanager
def gate_of_forward(gate: Tensor | None) -> Iterator[None]:
    """Context of one forward pass: its layers find ``gate``, one value for each image, (B,)."""
    token = _GATE.set(None if gate is None else ForwardGate(gate))
    try:
        yield
    finally:
        _GATE.reset(token)


_SILENT: ContextVar[bool] = ContextVar("updates are left out", default=False)


@contextmanager
def without_updates() -> Iterator[None]:
    """Context of a forward pass of the base alone: adapted layers leave their updates out."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def updates_are_left_out() -> bool:
    """Whether the running forward pass is that of the base."""
    return _SILENT.get()


def expert_weights(rows: int, experts: int, rank: int, dtype: torch.dtype, tokens: int = 1) -> Tensor:
    """The weight of each value between D and U of one or two experts, (rows * tokens, experts * rank).

    ``1 - gate`` for the first expert, ``gate`` for the second one. Layers of one shape find what the first of them
    made, which for narrow layers is most of what the gate costs.

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
    each = torch.stack((1 - forward.gate, forward.gate)[:experts], dim=1).to(dtype)
    shape = (images, rows // images * tokens, experts, rank)
    weights = each[:, None, :, None].expand(shape).reshape(rows * tokens, experts * rank)
    if not weights.requires_grad:  # those of a learned gate are part of a graph, which recomputing builds again
        forward.weights[key] = weights
    return weights


def broadcast_weights(narrow: Tensor, experts: int, rank: int, channel_axis: int) -> Tensor:
    """``narrow`` times the weights of `expert_weights`, for a traced or exported network, whose batch size is open.

    Args:
        narrow: What lies between D and U of one or two experts, (rows, ..., experts * rank) with the channels on
            ``channel_axis``.
        experts: 1 or 2.
        rank: Values of each expert.
        channel_axis: Axis of the values, -1 or 1.
    """
    gate = _of_forward().gate
    each = torch.stack((1 - gate, gate)[:experts], dim=1).to(narrow.dtype)
    by_image = torch.unflatten(narrow, 0, (gate.shape[0], -1))
    shape = [-1] + [1] * narrow.ndim
    shape[channel_axis % narrow.ndim + 1] = experts * rank
    return (by_image * each.repeat_interleave(rank, dim=1).view(shape)).flatten(0, 1)


def _of_forward() -> ForwardGate:
    forward = _GATE.get()
    if forward is None:
        raise DataError(
            "a quality-weighted layer ran without a gate: call the adapted backbone itself, with the quality of each "
            "image, not a part of it."
        )
    return forward
