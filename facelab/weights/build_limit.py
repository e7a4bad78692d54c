"""Building a network that a file describes: never larger than the tensors that came with it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module

from facelab.errors import CheckpointError, first_line

N = TypeVar("N", bound=nn.Module)

# What is built may differ from what is stored: tables that are computed anew, layers that a constructor replaces.
TIMES, SPARE_NUMBERS, SPARE_TENSORS = 2, 1 << 24, 1024

NEEDS_DATA = (RuntimeError, NotImplementedError)
"""What a constructor raises on the meta device that looks at values, which are not there."""

IMPOSSIBLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What constructors of layers raise where sizes do not go together."""


def build_within(build: Callable[[], N], weights: Mapping[str, Tensor], where: str) -> N:
    """The network that ``build`` makes, first without memory, which shows its size.

    Args:
        build: Makes the network from what a file says.
        weights: The tensors that are meant for it.
        where: Names the file in messages.

    Raises:
        CheckpointError: If it has far more or larger tensors than there are, or it cannot be built.
        FacelabError: What ``build`` raises.
    """
    try:
        with _no_larger_than(weights, where):
            # On meta nothing is reserved. A constructor that cannot go on there is measured while it builds in earnest.
            with suppress(*NEEDS_DATA), torch.device("meta"):
                build()
            return build()
    except IMPOSSIBLE as error:
        raise CheckpointError(
            f"the network that '{where}' describes cannot be built: {first_line(error):.200}."
        ) from None


@contextmanager
def _no_larger_than(weights: Mapping[str, Tensor], where: str) -> Iterator[None]:
    """Context in which modules cannot have far more parameters and buffers than ``weights``.

    Each counts when a module takes it, so that a network of a million layers ends after the first few.
    """
    numbers = TIMES * sum(tensor.numel() for tensor in weights.values()) + SPARE_NUMBERS
    tensors = TIMES * len(weights) + SPARE_TENSORS
    seen = {"numbers": 0, "tensors": 0}

    def count(owner: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            return
        if not tensor.is_meta and not seen.get("real"):  # the second time, now with memory
            seen.update(numbers=0, tensors=0, real=1)
        seen["numbers"] += tensor.numel()
        seen["tensors"] += 1
        if seen["numbers"] > numbers or seen["tensors"] > tensors:
            raise CheckpointError(
                f"'{where}' describes a network that is far larger than its {len(weights)} tensors; they are not of it."
            )

    hooks = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
