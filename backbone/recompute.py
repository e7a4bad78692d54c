"""Gradient checkpointing that recomputes in the circumstances of the forward pass."""

from collections.abc import Callable
from contextvars import copy_context

from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``block(*inputs)`` whose inner values are not kept but computed again in the backward pass.

    The second computation runs in a copy of the first one's context variables, in whatever thread the backward pass
    is: what adapted layers know of their batch is there again (`facelab.adapter.gate_slot`). Random numbers repeat.
    """
    context = copy_context()

    def run(*values: Tensor) -> Tensor:
        return context.copy().run(block, *values)

    result: Tensor = checkpoint(run, *inputs, use_reentrant=False)
    return result
