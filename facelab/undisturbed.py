"""A forward pass beside training, which leaves no trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Context in which a network is in evaluation mode; afterwards modes and random generators are as before.

    Args:
        network: The network; the mode of each of its modules is put back.
        device: Whose random generator is put back, beside that of the CPU.
    """
    training = [module for module in network.modules() if module.training]
    devices = [device] if device.type == "cuda" else []
    network.eval()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module in training:
            module.training = True
