"""A network's methods, called as they are or, where they are forward passes, as one compiled graph each."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from facelab.errors import ConfigError, first_line

Compile = Literal["off", "default", "max"]
OPTIONS: Mapping[Compile, Mapping[str, Any]] = {
    "default": {},
    # It tries several kernels for each product. Without CUDA graphs of its own, which would hold one forward pass and
    # one backward pass each; training.cuda_graph holds a whole step.
    "max": {"mode": "max-autotune-no-cudagraphs"},
}

COMPILED = ("__call__", "features")  # what training calls with gradients; others switch the network to and fro

CallMethod = Callable[..., Any]
"""Of a network, the name of one of its methods, and that method's inputs."""


def call_method(network: nn.Module, method: str, *inputs: Any) -> Any:
    """What a method of a network gives."""
    return getattr(network, method)(*inputs)


def method_caller(how: Compile) -> CallMethod:
    """`call_method`, or the same by `torch.compile`, a forward pass in one graph.

    The network itself stays as it is: its parameters, the names in its state dict, and what others call of it.

    Args:
        how: ``off``, ``default``, or ``max``, which takes longer to compile and may be faster.
    """
    return call_method if how == "off" else _Compiled(how)


class _Compiled:
    """Calls methods by `torch.compile`, which begins when a method is first called, and anew for inputs of other shape.

    Args:
        how: ``default`` or ``max``.
    """

    def __init__(self, how: Compile) -> None:
        self.how = how
        self._programs: dict[tuple[nn.Module, str], Callable[..., Any]] = {}
        # torch keeps eight programs of a function, such as a base class's ``forward``, and refuses a ninth; those of
        # the runs that this process has made before, as a study does, are of no use any more.
        torch.compiler.reset()

    def __call__(self, network: nn.Module, method: str, *inputs: Any) -> Any:
        if method not in COMPILED:
            return call_method(network, method, *inputs)
        key = network, method
        if key not in self._programs:
            # A whole graph or none: where the compiler gave up in the middle, the network would hardly be faster.
            self._programs[key] = torch.compile(getattr(network, method), fullgraph=True, **OPTIONS[self.how])
        try:
            return self._programs[key](*inputs)
        except (TorchDynamoException, GuardOnDataDependentSymNode) as error:
            raise ConfigError(
                f"training.compile={self.how} cannot make one graph of {type(network).__name__}: {first_line(error)}; "
                "set training.compile=off."
            ) from None
