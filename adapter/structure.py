"""What a network is made of, to see afterwards what an adapter changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn


@dataclass(frozen=True)
class Structure:
    """Names, shapes and kinds of the parts of a network.

    Attributes:
        shapes: Shape of every tensor of its state dict.
        layers: Class of every module, and how many hooks or replaced methods change what it computes.
        fixed: Parameters that the network itself keeps from being trained.
        parameters: How many numbers its parameters have.
    """

    shapes: Mapping[str, torch.Size]
    layers: Mapping[str, tuple[type[nn.Module], int]]
    fixed: frozenset[str]
    parameters: int

    @classmethod
    def of(cls, network: nn.Module) -> Self:
        """The structure of a network as it is now."""
        parameters = dict(network.named_parameters())
        return cls(
            {name: tensor.shape for name, tensor in network.state_dict().items()},
            {name: _kind(layer) for name, layer in network.named_modules()},
            frozenset(name for name, parameter in parameters.items() if not parameter.requires_grad),
            sum(parameter.numel() for parameter in parameters.values()),
        )

    def differences(self, network: nn.Module, replaced: Mapping[str, nn.Module]) -> set[str]:
        """Modules and tensors that would differ if some layers of ``network`` were replaced.

        Args:
            network: A network that was changed since.
            replaced: The new layers by their names.
        """
        layers = {name: _kind(replaced.get(name, layer)) for name, layer in network.named_modules()}
        old = tuple(f"{name}." for name in replaced)
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items() if not name.startswith(old)}
        for place, layer in replaced.items():
            shapes |= {f"{place}.{name}": tensor.shape for name, tensor in layer.state_dict().items()}
        return _differing(self.layers, layers) | _differing(self.shapes, shapes)


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def _kind(layer: nn.Module) -> tuple[type[nn.Module], int]:
    changes = len(layer._forward_hooks) + len(layer._forward_pre_hooks) + ("forward" in vars(layer))
    return type(layer), changes
